"""What the system costs while nothing is sent: CPU and memory of each program."""

from __future__ import annotations

import asyncio
from typing import Any

from infra.local.stack import Stack
from tests.benchmarks.cpu import CpuUse, resident_mib
from tests.benchmarks.lag import settle

CDC_PROGRAMS = ("connect", "kafka", "supervise")
"""The change data capture leg; PostgreSQL's walsender is within postgres, which idles besides."""


async def measure(stack: Stack, *, seconds: float) -> dict[str, Any]:
    """Percent of one core per program, after everything has been worked off, and the sum of the CDC leg."""
    await settle(stack)
    await asyncio.sleep(3)
    cpu = CpuUse.of(stack)
    await asyncio.sleep(seconds)
    percent = await cpu.percent_since()
    return {
        "cpu_percent": percent,
        "cdc_leg_percent": round(sum(percent[program] for program in CDC_PROGRAMS), 1),
        "resident_mib": resident_mib(stack),
    }
