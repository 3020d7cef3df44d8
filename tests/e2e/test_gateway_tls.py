"""HTTPS in front of the real programs: certificates come and go by ACME, and nobody is cut off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import websockets

from infra.local.stack import Stack
from tests.acme import await_certificate, production_variables, start_acme_server, verifying_context
from tests.caddy import start_caddy
from tests.chat_client import ChatClient

DOMAIN = "chat.example"


async def test_certificates_are_renewed_while_a_websocket_stays_open(
    stack: Stack, client: ChatClient, tmp_path: Path
) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    with start_acme_server(certificate_seconds=9) as acme:
        variables = {
            **production_variables(acme, tmp_path, domain=DOMAIN),
            "CHAT4ALL_INGEST_API_UPSTREAM": f"127.0.0.1:{stack.ports.ingest_api}",
            "CHAT4ALL_DELIVERY_UPSTREAM": f"127.0.0.1:{stack.ports.delivery}",
        }
        with start_caddy(acme.tls_port, variables, config="production.caddyfile"):
            serials = [await asyncio.to_thread(await_certificate, acme, DOMAIN)]
            context = verifying_context(acme)
            async with (
                websockets.connect(
                    f"wss://{DOMAIN}/v1/ws",
                    host="127.0.0.1",
                    port=acme.tls_port,
                    ssl=context,
                    origin=websockets.Origin(f"https://{DOMAIN}"),
                    subprotocols=[websockets.Subprotocol("chat4all.v1")],
                ) as socket,
                httpx.AsyncClient(verify=context, http2=False, timeout=30) as http,
            ):
                await socket.send(json.dumps({"type": "authenticate", "token": bob.token}))
                await socket.send(json.dumps({"type": "subscribe", "conversation_id": conversation_id}))
                texts: list[str] = []
                for number in range(3):
                    answer = await http.post(
                        f"https://127.0.0.1:{acme.tls_port}/v1/conversations/{conversation_id}/messages",
                        json={"body": {"type": "text", "text": f"certificate {number}"}},
                        headers={**alice.headers, "Host": DOMAIN},
                        extensions={"sni_hostname": DOMAIN},
                    )
                    assert answer.status_code == 201, answer.text
                    async with asyncio.timeout(30):
                        while len(texts) <= number:
                            for line in str(await socket.recv()).splitlines():
                                event = json.loads(line).get("event", {})
                                if event.get("type") == "MessageSent":
                                    texts.append(event["body"]["text"])
                    renewed = await asyncio.to_thread(await_certificate, acme, DOMAIN, other_than=serials[-1])
                    serials.append(renewed)
                assert texts == [f"certificate {number}" for number in range(3)]
                assert len(set(serials)) == 4
