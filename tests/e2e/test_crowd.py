"""More comes in than can be served: each command is answered, those that waited in vain are told when to come back over
a connection that stays open, and what was accepted is in the log once."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter

from infra.local.stack import Stack
from tests.api_process import ApiProcess, api_process
from tests.benchmarks.load import request_head
from tests.chat_client import ChatClient

CONNECTIONS = 150
ROUNDS = 3
BODY = json.dumps({"body": {"type": "text", "text": "x"}}).encode()


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, api: ApiProcess) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", api.port))

    async def ask(self, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to what the parts, sent one after the other, say."""
        for part in parts:
            await self.say(part)
        return await self.read_answer()

    async def say(self, part: bytes) -> None:
        self._writer.write(part)
        await self._writer.drain()
        await asyncio.sleep(0)

    async def read_answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode().rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split(" ")[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def make_head(client: ChatClient) -> bytes:
    """What comes before the body of a message to a new conversation."""
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    head = request_head(f"/v1/conversations/{conversation_id}/messages", alice.token)
    return head + f"Content-Length: {len(BODY)}\r\n\r\n".encode()


async def test_in_a_crowd_everybody_is_answered(stack: Stack, client: ChatClient) -> None:
    head = await make_head(client)
    seqs: list[int] = []
    statuses: Counter[int] = Counter()

    async def send(api: ApiProcess, number: int) -> None:
        wire = await Wire.open(api)
        for _ in range(ROUNDS):
            parts = [head + BODY] if number % 5 else [head, BODY]  # some come in pieces
            status, headers, answer = await wire.ask(*parts)
            statuses[status] += 1
            assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
            assert headers["x-content-type-options"] == "nosniff"
            if status == 201:
                seqs.append(json.loads(answer)["seq"])
            else:
                assert status == 503
                assert headers["content-type"] == "application/problem+json"
                assert json.loads(answer)["type"] == "urn:chat4all:problem:overloaded"
                assert headers["retry-after"] in set("12345")
        await wire.close()

    settings = {"CHAT4ALL_COMMANDS_SERVED": "1", "CHAT4ALL_COMMAND_PATIENCE_SECONDS": "0.05"}
    async with api_process(stack, **settings) as api:
        async with asyncio.timeout(60):
            await asyncio.gather(*(send(api, number) for number in range(CONNECTIONS)))
        metrics = (await client.http.get(f"{api.url}/metrics")).text
    assert statuses[201] > 0
    assert statuses[503] > 0, "there was no crowd"
    assert statuses.total() == CONNECTIONS * ROUNDS
    assert sorted(seqs) == list(range(2, len(seqs) + 2)), "what was accepted is in the log once, and nothing else"
    assert "ingest_api_commands_held 0.0" in metrics
    assert "ingest_api_commands_served 0.0" in metrics
    assert f"ingest_api_commands_refused_total {statuses[503]}.0" in metrics


async def test_who_says_more_while_it_is_held_gets_every_answer(stack: Stack, client: ChatClient) -> None:
    head = await make_head(client)
    async with api_process(stack, CHAT4ALL_COMMANDS_SERVED="1", CHAT4ALL_COMMAND_PATIENCE_SECONDS="0.5") as api:
        wires = [await Wire.open(api) for _ in range(CONNECTIONS)]
        for _ in range(ROUNDS):
            await asyncio.gather(*(wire.say(head + BODY) for wire in wires))
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            answers = [await wire.read_answer() for wire in wires for _ in range(ROUNDS)]
        for wire in wires:
            await wire.close()
    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) <= {201, 503}
    seqs = [json.loads(answer)["seq"] for status, _, answer in answers if status == 201]
    assert sorted(seqs) == list(range(2, len(seqs) + 2))
    assert seqs, "none was accepted"


async def test_who_is_held_when_the_process_ends_is_told_so(stack: Stack, client: ChatClient) -> None:
    head = await make_head(client)
    async with api_process(stack, CHAT4ALL_COMMANDS_SERVED="1", CHAT4ALL_COMMAND_PATIENCE_SECONDS="30") as api:
        wires = [await Wire.open(api) for _ in range(CONNECTIONS)]
        asking = [asyncio.create_task(wire.ask(head + BODY)) for wire in wires]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        await api.end()
        answers = await asyncio.gather(*asking)
        for wire in wires:
            await wire.close()
    for status, headers, answer in answers:
        assert status == 201 or (status, headers["connection"]) == (503, "close")
        assert status == 201 or json.loads(answer)["type"] == "urn:chat4all:problem:shutting-down"
