"""The lean HTTP client of the benchmarks."""

from __future__ import annotations

import asyncio

from tests.benchmarks.load import ConnectionPool

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    opened = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    pool = ConnectionPool(server.sockets[0].getsockname()[1])
    async with server:
        await pool.open(1)
        for _ in range(2):
            async with asyncio.timeout(5):
                assert await pool.post(b"POST / HTTP/1.1\r\n", b"") == (201, b"{}")
                while not pool.free[0].is_lost:
                    await asyncio.sleep(0.01)
        pool.close()
    assert opened == 2
