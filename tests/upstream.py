"""A program behind the gateway that notes every request as it arrives, byte by byte read and strictly framed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

TICK = b"data: tick\n\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request. Header names are lower case; the values of one name are a list."""

    method: str
    target: str
    headers: dict[str, list[str]]
    body: bytes


@dataclass
class Upstream:
    """`requests` is what has arrived; `unread` what arrived and was no request (a smuggled rest would be here)."""

    name: str
    port: int = 0
    requests: list[Seen] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. A GET of a path that ends in /stream is answered by ticks, ten each second, for ever."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await self._read_head(reader):
                line, headers = head
                parts = line.split(" ")
                body = await self._read_body(reader, headers)
                self.requests.append(Seen(parts[0], parts[1], headers, body))
                if parts[1].partition("?")[0].endswith("/stream"):
                    await self._tick(writer)
                writer.write(self._answer(parts[1]))
                await writer.drain()
        writer.close()

    def _answer(self, target: str) -> bytes:
        text = f"{self.name} {target}".encode()
        return b"HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)

    async def _read_head(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, list[str]]] | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.unread.append(error.partial)
            return None
        line, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        headers: dict[str, list[str]] = {}
        for each in rest:
            name, _, value = each.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        return line, headers

    async def _read_body(self, reader: asyncio.StreamReader, headers: dict[str, list[str]]) -> bytes:
        if "transfer-encoding" in headers:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
            return body
        return await reader.readexactly(int(headers.get("content-length", ["0"])[0]))

    async def _tick(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(TICK), TICK))
            await writer.drain()
            await asyncio.sleep(0.1)


@contextmanager
def start_upstream(name: str) -> Iterator[Upstream]:
    """Serves on a free port of loopback, from a thread of its own."""
    upstream = Upstream(name)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(upstream.serve, "127.0.0.1", 0))
    upstream.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
