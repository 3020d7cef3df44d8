"""`python -m tests.benchmarks capacity`: the highest rate that the whole system carries, where the time goes at it, and
what to scale first.

A rate is carried when everything was accepted, 99 of 100 messages were received within 50 ms of their intended start,
and what waits for the stream apps did not grow. The search doubles the rate until one is not carried, then halves the
distance between the two. A rate has two tries, for a machine that stands still for a moment makes any rate fail.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from statistics import linear_regression
from typing import Any

import psutil

from infra.local.stack import Report, Stack
from tests.benchmarks.cpu import CpuUse
from tests.benchmarks.lag import read_lags, settle
from tests.benchmarks.live import Watcher
from tests.benchmarks.load import ConnectionPool, Latencies, request_head, run_open_loop
from tests.chat_client import ChatClient, User

P99_MILLISECONDS = 50.0
GROWTH_SECONDS = 1.5
"""What waits may grow by so much of the rate: lag is counted from what was committed, and that is done every second."""
TRIES = 2
RESOLUTION = 0.1
"""The search ends when the highest carried rate and the lowest that is not are so close together."""
HIGHEST = 65_536.0
CONVERSATIONS = 50
CONNECTIONS = 128
BATCH_SIZE = 10
ARRIVAL_SECONDS = 60
WARM_UP_RATE = 200.0
FILLER = "x" * 180
SINGLE_CORE = ("ingest-api", "timeline", "router", "channels", "delivery", "redis", "audit", "supervise", "generator")
"""Programs of which one process uses one core at most (Redis: almost)."""


@dataclass(frozen=True)
class Step:
    """What a rate gave. `lag_growth` is in records, over the step, of the stream app that fell behind most."""

    rate: float
    accepted_share: float
    p99_ms: float
    lag_growth: int
    cpu_percent: dict[str, float]

    @property
    def is_carried(self) -> bool:
        """By all three conditions."""
        return (
            self.accepted_share == 1
            and self.p99_ms <= P99_MILLISECONDS
            and self.lag_growth <= self.rate * GROWTH_SECONDS
        )


async def find_highest(measure: Callable[[float], Awaitable[Step]], *, first: float) -> list[Step]:
    """All steps, in their order, beginning at the rate `first`, which is halved until it is carried."""
    steps: list[Step] = []
    carried, failed = 0.0, inf
    rate = first
    while carried == 0 or failed > carried * (1 + RESOLUTION):
        for _ in range(TRIES):
            steps.append(await measure(rate))
            if steps[-1].is_carried:
                carried = rate
                break
        else:
            failed = rate
        if failed == inf:
            if rate >= HIGHEST:
                break
            rate *= 2
        elif carried == 0:
            rate /= 2
            if rate < 1:
                break
        else:
            rate = (carried + failed) / 2
    return steps


def highest_carried(steps: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The described step with the highest rate among those that were carried."""
    carried = (step for step in steps if step["is_carried"])
    return max(carried, key=lambda step: float(step["rate_per_second"]), default=None)


@dataclass
class Seen:
    """What one live client has seen of the numbered messages."""

    intended_starts: dict[int, float] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)
    latencies: Latencies = field(default_factory=Latencies)

    def note(self, number: int) -> None:
        """A message came."""
        if number in self.numbers or number not in self.intended_starts:
            return
        self.numbers.add(number)
        self.latencies.record(time.perf_counter() - self.intended_starts[number])


class Load:
    """A user, conversations and connections, kept over all steps."""

    def __init__(self, stack: Stack, user: User, ids: list[str], batch_size: int, report: Report) -> None:
        self._stack = stack
        self._user = user
        self._ids = ids
        self._batch_size = batch_size
        self._report = report
        self._numbered = 0

    async def measure(self, rate: float, seconds: float) -> Step:
        """One step: `rate` messages per second."""
        await settle(self._stack)
        seen = Seen()
        accepted: set[int] = set()
        first, batch = self._numbered, self._batch_size
        posts = max(1, int(rate * seconds / batch))
        self._numbered += posts * batch
        pool = ConnectionPool(self._stack.ports.ingest_api)
        await pool.open(CONNECTIONS)
        watcher = await self._watch(seen)
        heads = [request_head(f"/v1/conversations/{each}/messages", self._user.token) for each in self._ids]
        batch_head = request_head("/v1/messages/batch", self._user.token)

        async def send(number: int, intended: float) -> None:
            numbers = range(first + number * batch, first + (number + 1) * batch)
            seen.intended_starts.update(dict.fromkeys(numbers, intended))
            if batch == 1:
                status, _ = await pool.post(heads[number % len(heads)], json.dumps(_message(numbers[0])).encode())
                accepted.update(numbers if status == 201 else ())
            else:
                messages = [{"conversation_id": self._ids[each % len(self._ids)], **_message(each)} for each in numbers]
                status, answer = await pool.post(batch_head, json.dumps({"messages": messages}).encode())
                if status == 200 and answer.count(b'"status":201') == batch:
                    accepted.update(numbers)

        try:
            before = await read_lags(self._stack)
            cpu = CpuUse.of(self._stack)
            generator = await run_open_loop(rate / batch, posts * batch / rate, send)
            percent = await cpu.percent_since()
            after = await read_lags(self._stack)
            async with asyncio.timeout(ARRIVAL_SECONDS):
                while not accepted <= seen.numbers:
                    await asyncio.sleep(0.02)
        finally:
            watcher.close()
            pool.close()
        step = Step(
            rate=round(rate, 1),
            accepted_share=round(len(accepted) / (posts * batch), 4),
            p99_ms=seen.latencies.milliseconds()["p99"],
            lag_growth=max(after[app] - lag for app, lag in before.items()),
            cpu_percent={**percent, "generator": generator["generator_cpu_percent"]},
        )
        self._report(
            f"  {step.rate:g}/s: {step.accepted_share:.1%} accepted, p99 {step.p99_ms} ms, {step.lag_growth} records"
            f" more wait: {'carried' if step.is_carried else 'not carried'}",
        )
        return step

    async def _watch(self, seen: Seen) -> Watcher:
        request = (
            f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._user.token}\r\n\r\n"
        ).encode()
        _, watcher = await asyncio.get_running_loop().create_connection(
            lambda: Watcher(request, b"", seen.note), "127.0.0.1", self._stack.ports.delivery
        )
        async with asyncio.timeout(30):
            await watcher.ready
        return watcher


def _message(number: int) -> dict[str, Any]:
    return {"body": {"type": "text", "text": f"~#{number}~ {FILLER}"}}


async def measure(stack: Stack, *, seconds: float, report: Report, first: float = 100.0) -> dict[str, Any]:
    """The search for single posts and for batches of ten, after a warm-up."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    try:
        alice = await client.register("alice")
        ids = [await client.create_conversation(alice) for _ in range(CONVERSATIONS)]
    finally:
        await client.close()
    results: dict[str, Any] = {
        "p99_milliseconds": P99_MILLISECONDS,
        "step_seconds": seconds,
        "cores": psutil.cpu_count(),
    }
    for name, batch_size in (("single", 1), ("batch", BATCH_SIZE)):
        report(f"searching the highest rate, {name} ...")
        load = Load(stack, alice, ids, batch_size, report)
        await load.measure(WARM_UP_RATE, seconds)
        steps = await find_highest(lambda rate, load=load: load.measure(rate, seconds), first=first)  # type: ignore[misc]
        results[name] = {"batch_size": batch_size, "steps": [describe(step) for step in steps]}
    return results


def describe(step: Step) -> dict[str, Any]:
    """For the results."""
    return {
        "rate_per_second": step.rate,
        "is_carried": step.is_carried,
        "accepted_share": step.accepted_share,
        "p99_ms": step.p99_ms,
        "lag_growth": step.lag_growth,
        "cpu_percent": step.cpu_percent,
    }


@dataclass(frozen=True)
class Growth:
    """A straight line through what a program took at each rate: percent of one core while nothing comes, and percent
    more per message/s."""

    idle: float
    per_message: float

    @classmethod
    def through(cls, rates: list[float], percents: list[float]) -> Growth:
        """By least squares; of two different rates at least."""
        slope, intercept = linear_regression(rates, percents)
        return cls(intercept, slope)

    def end(self, percent: float) -> float:
        """The rate at which it takes so much."""
        return (percent - self.idle) / self.per_message if self.per_message > 0 else inf


def advise(steps: list[dict[str, Any]], best: dict[str, Any], cores: int) -> list[str]:
    """What to scale first, in sentences, from what each program took at the rates that were tried; `best` is the
    highest of these that was carried."""
    total = sum(best["cpu_percent"].values())
    sentences = [
        f"All programs together take {total:.0f} of {100 * cores} percent at {best['rate_per_second']:g} messages/s,"
        f" the generator {best['cpu_percent']['generator']:.0f} of them."
    ]
    rates = [float(step["rate_per_second"]) for step in steps]
    if len(set(rates)) == 1:
        return sentences
    growth = {
        name: Growth.through(rates, [step["cpu_percent"].get(name, 0.0) for step in steps])
        for name in best["cpu_percent"]
    }
    machine = Growth.through(rates, [sum(step["cpu_percent"].values()) for step in steps])
    ends = {name: grown.end(100) for name, grown in growth.items() if name in SINGLE_CORE}
    first = min(ends, key=lambda name: ends[name])
    sentences.append(
        f"From {min(rates):g} to {max(rates):g}/s they take {machine.per_message:.2f} percent of a core more per"
        f" message/s; if that goes on, the cores are full near {machine.end(100 * cores):.0f}/s, and the first program"
        f" that uses one core at most, {first}, near {ends[first]:.0f}/s."
    )
    if machine.end(100 * cores) > ends[first]:
        return [*sentences, f"So a second process of {first} comes first."]
    largest = sorted(growth, key=lambda name: -growth[name].per_message)[:3]
    shares = ", ".join(f"{name} ({growth[name].per_message:.3f})" for name in largest)
    return [*sentences, f"So cores come first, or machines of their own for what grows most: {shares}."]


def render(results: dict[str, Any]) -> str:
    """The search and its table as Markdown."""
    sections = [
        f"**Capacity: the highest rate at which p99 of submit → received stays under"
        f" {results['p99_milliseconds']:g} ms and nothing piles up, steps of {results['step_seconds']:g} s**"
    ]
    for name, title in (("single", "Single posts"), ("batch", "Batches")):
        found = results[name]
        size = f" of {found['batch_size']}" if found["batch_size"] > 1 else ""
        tried = ", ".join(
            f"{step['rate_per_second']:g}/s {step['p99_ms']:g} ms{'' if step['is_carried'] else ' ✗'}"
            for step in found["steps"]
        )
        best = highest_carried(found["steps"])
        if best is None:
            sections.append(f"{title}{size}: no rate was carried. Tried: {tried}.")
            continue
        rate = best["rate_per_second"]
        lines = ["| program | percent of one core | µs per message |", "| --- | --- | --- |"]
        lines += [
            f"| {program} | {percent} | {10_000 * percent / rate:.0f} |"
            for program, percent in sorted(best["cpu_percent"].items(), key=lambda item: -item[1])
        ]
        sections += [
            f"{title}{size}: **{rate:g} messages/s**. Tried: {tried}.",
            "\n".join(lines),
            "What to scale first: " + " ".join(advise(found["steps"], best, results["cores"])),
        ]
    return "\n\n".join(sections)
