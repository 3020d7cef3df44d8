"""How much waits for the stream apps, as they say themselves."""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import time

import httpx

from infra.local.stack import Stack

STANDSTILL_SECONDS = 120
ON_THEIR_WAY = 50
"""So few are always on their way: the canary's, and those that are not committed yet."""
_NO_AUTHORITY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Loading those of the machine takes up to 0.2 s, which would be charged to the messages that are on their way."""


async def read_lags(stack: Stack) -> dict[str, int]:
    """Stream app -> records of its partitions that are not committed."""
    ports = {"timeline": stack.ports.timeline_metrics, "router": stack.ports.router_metrics}
    lags = {}
    async with httpx.AsyncClient(timeout=10, trust_env=False, verify=_NO_AUTHORITY) as http:
        for app, port in ports.items():
            text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
            found = re.search(rf"(?m)^{app}_lag_records ([0-9.e+]+)$", text)
            assert found is not None, f"{app} does not tell its lag"
            lags[app] = int(float(found[1]))
    return lags


async def settle(stack: Stack) -> None:
    """Waits until next to nothing waits, so that one measurement does not pay for the one before. Raises TimeoutError
    if what waits does not become less."""
    least, since = math.inf, time.monotonic()
    while (waiting := sum((await read_lags(stack)).values())) > ON_THEIR_WAY:
        if waiting < least:
            least, since = waiting, time.monotonic()
        elif time.monotonic() - since > STANDSTILL_SECONDS:
            raise TimeoutError(f"{waiting} records wait for the stream apps, and nothing moves")
        await asyncio.sleep(0.5)
