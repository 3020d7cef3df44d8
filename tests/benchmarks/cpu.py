"""What each program of a stack costs: its share of one core, with the processes that it started, and its memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

import psutil

from infra.local.errors import StackError
from infra.local.programs import PROGRAMS
from infra.local.stack import Stack


@dataclass(frozen=True)
class CpuUse:
    """A point in time to measure from."""

    stack: Stack
    at: float
    seconds: dict[str, float]

    @classmethod
    def of(cls, stack: Stack) -> CpuUse:
        """Now."""
        return cls(stack, time.perf_counter(), _cpu_seconds(stack))

    async def percent_since(self) -> dict[str, float]:
        """Program -> percent of one core, from then until now. In a thread: asking for so many processes takes a while,
        which would be charged to the messages that are on their way."""
        elapsed = time.perf_counter() - self.at
        now = await asyncio.to_thread(_cpu_seconds, self.stack)
        return {
            name: round(100 * (now[name] - before) / elapsed, 1) for name, before in self.seconds.items() if name in now
        }


def _cpu_seconds(stack: Stack) -> dict[str, float]:
    used: dict[str, float] = {}
    for program in PROGRAMS:
        try:
            leader = psutil.Process(stack.process_id(program.name))
        except StackError:  # what only watches may be away
            continue
        processes = [leader, *leader.children(recursive=True)]
        used[program.name] = sum(sum(process.cpu_times()[:2]) for process in processes)
    return used


def resident_mib(stack: Stack) -> dict[str, int]:
    """Program -> MiB of resident memory now, of its own process (PostgreSQL's share theirs)."""
    found = {}
    for program in PROGRAMS:
        if program.name == "postgres":
            continue
        with contextlib.suppress(StackError):
            found[program.name] = psutil.Process(stack.process_id(program.name)).memory_info().rss // 2**20
    return found
