"""`python -m tests.benchmarks`: how fast the system is. Brings up a system of its own, measures it, and writes
docs/benchmarks.json, the figures of docs/benchmarks.md and their plots.

  python -m tests.benchmarks                        everything (`make bench`)
  python -m tests.benchmarks latency cdc            these parts; the others stay as they were
  python -m tests.benchmarks gateway                submit -> received, directly and through the gateway
  python -m tests.benchmarks --quick                a short run of most parts that writes nothing (`make bench-quick`)
  python -m tests.benchmarks capacity               the highest rate that is carried, and what to scale first
  python -m tests.benchmarks compare A.json B.json  what changed beyond noise; exit status 1 if something is worse
  python -m tests.benchmarks page                   the page and its plots anew, from docs/benchmarks.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from infra.local.config import StackConfig
from infra.local.stack import Stack
from tests.benchmarks import (
    backfill,
    capacity,
    change_data_capture,
    comparison,
    end_to_end,
    http,
    idle,
    live,
    log_writer,
    outboxes,
    polled,
    takeover,
    timeline,
)
from tests.benchmarks.cpu import resident_mib
from tests.benchmarks.figures import read_figures
from tests.benchmarks.lag import settle
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.report import RESULTS, render, write_page
from tests.conftest import ROOT

Result = TypeVar("Result")

QUICK_SECONDS = 2.0
WARM_UP_SECONDS = 60.0
WARM_UP_RATE = 300.0
"""Until their just-in-time compilers have settled, the two Java servers take twice the CPU time."""
RATES = (200, 500, 2000)
READERS = ("timeline", "router", "channels", "delivery", "audit")
ACKNOWLEDGED_RATE = 1000.0
GATEWAY_RATES = (200, 500)
BACKLOG = 60_000


async def measure(stack: Stack, parts: list[str], seconds: float) -> tuple[dict[str, Any], list[str]]:
    """The results of the parts, in their order, and the names of those that could not be measured, which cost the
    others nothing."""
    results: dict[str, Any] = {}
    failed = []
    if parts != ["outboxes"]:  # it warms up what it needs
        print(f"warming up for {WARM_UP_SECONDS:g} s ...", flush=True)
        await end_to_end.measure_latency(stack, rate=WARM_UP_RATE, seconds=WARM_UP_SECONDS, warm_up_seconds=0)
    if parts == ["capacity"]:
        return {"capacity": await capacity.measure(stack, seconds=seconds, report=print)}, []
    for name, part in PARTS.items():
        if name in parts:
            print(f"measuring {part.what} ...", flush=True)
            try:
                if not part.without:
                    await settle(stack)
                with stopped(stack, part.without):
                    results |= await part.measure(stack, seconds)
            except Exception:
                traceback.print_exc()
                failed.append(name)
    return results, failed


async def measure_quickly(stack: Stack, seconds: float) -> dict[str, Any]:
    """A little of the path and of every baseline, to show that all of it can be measured. Nothing is warm."""
    print("measuring a little of everything ...", flush=True)
    results: dict[str, Any] = {
        "latency": [await end_to_end.measure_latency(stack, rate=100, seconds=seconds, warm_up_seconds=0)],
        "memory": {"resident_mib": resident_mib(stack)},
        "idle": await idle.measure(stack, seconds=seconds),
    }
    with stopped(stack, READERS):
        results["insert_to_kafka"] = await change_data_capture.compare(stack, rate=50, seconds=seconds)
        results["polled"] = await polled.compare(stack, rate=50, seconds=seconds)
        results["log_writer"] = await log_writer.compare(stack, seconds=seconds)
    figures = read_figures(results)
    empty = [name for name, figure in figures.items() if not name.startswith("idle") and min(figure.values) <= 0]
    assert figures, "nothing was measured"
    assert not empty, f"these were measured as nothing: {', '.join(empty)}"
    return results


async def measure_latencies(stack: Stack, seconds: float) -> list[dict[str, Any]]:
    """Each rate twice, upwards and downwards again, so that what changes with time falls on all of them."""
    runs = []
    for rate in (*RATES, *reversed(RATES)):
        await settle(stack)
        runs.append(await end_to_end.measure_latency(stack, rate=rate, seconds=seconds))
    return runs


async def measure_throughput(stack: Stack, seconds: float) -> dict[str, Any]:
    """With everything there, and with the stream side stopped."""
    whole = await http.measure_throughput(stack, seconds=seconds)
    with stopped(stack, (*READERS, "connect")):
        return {
            "whole_system": whole,
            "stream_side_stopped": await http.measure_throughput(stack, seconds=seconds),
            "batches": await http.measure_batches(stack, seconds=seconds),
            "open_loop": await http.measure_open_loop(stack, rate=ACKNOWLEDGED_RATE, seconds=seconds),
        }


async def measure_overload(stack: Stack, seconds: float) -> dict[str, Any]:
    """Four times what a closed loop gets through."""
    peak = await http.measure_throughput(stack, seconds=seconds)
    return await http.measure_overload(stack, peak=peak["accepted_per_second"], seconds=2 * seconds)


async def measure_drain(stack: Stack) -> dict[str, Any]:
    """Of a backlog, through one outbox."""
    rates = [round(await outboxes.drain(stack, 1, backlog=BACKLOG)) for _ in range(3)]
    return {"backlog": BACKLOG, "records_per_second": rates[1:]}  # the first one warms up


async def compare_ways(stack: Stack, seconds: float) -> list[dict[str, Any]]:
    """The same load at the programs' own ports and through the gateway, twice each, in turn."""
    runs: list[dict[str, Any]] = []
    for rate in GATEWAY_RATES:
        for via_gateway in (False, True, True, False):
            await settle(stack)
            run = await end_to_end.measure_latency(stack, rate=rate, seconds=seconds, via_gateway=via_gateway)
            runs.append({"via_gateway": via_gateway, **run})
    return runs


@contextmanager
def stopped(stack: Stack, programs: tuple[str, ...]) -> Iterator[None]:
    """Without these programs, which are not what is measured."""
    for program in programs:
        stack.stop_program(program)
    try:
        yield
    finally:
        for program in reversed(programs):
            stack.start_program(program)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a run: what is measured, its name in the results, and which programs are stopped for it."""

    what: str
    key: str
    run: Callable[[Stack, float], Awaitable[Any]]
    without: tuple[str, ...] = ()

    async def measure(self, stack: Stack, seconds: float) -> dict[str, Any]:
        """Its results under its name."""
        return {self.key: await self.run(stack, seconds)}


async def measure_memory(stack: Stack) -> dict[str, Any]:
    """What each program holds after what was measured before."""
    return {"resident_mib": resident_mib(stack)}


WRITES_ALONE = (*READERS, "connect")
PARTS: Mapping[str, Part] = {
    "idle": Part("the system while nothing is sent", "idle", lambda stack, s: idle.measure(stack, seconds=s)),
    "latency": Part("submit -> received", "latency", measure_latencies),
    "gateway": Part("submit -> received, directly and through the gateway", "gateway", compare_ways),
    "memory": Part("memory", "memory", lambda stack, _: measure_memory(stack)),
    "cdc": Part(
        "insert -> Kafka (Debezium's defaults and ours)",
        "insert_to_kafka",
        lambda stack, s: change_data_capture.compare(stack, rate=500, seconds=s),
        READERS,
    ),
    "polled": Part(
        "insert -> Kafka (a poller and ours)",
        "polled",
        lambda stack, s: polled.compare(stack, rate=500, seconds=s),
        READERS,
    ),
    "throughput": Part("throughput", "throughput", measure_throughput),
    "overload": Part("overload", "overload", measure_overload, WRITES_ALONE),
    "writer": Part("the log writer", "log_writer", lambda stack, s: log_writer.compare(stack, seconds=s), WRITES_ALONE),
    "timeline": Part("the timeline worker", "timeline", lambda stack, _: timeline.compare(stack), WRITES_ALONE),
    "takeover": Part(
        "how late messages are when a worker is killed", "takeover", lambda stack, _: takeover.measure(stack)
    ),
    "live": Part("live clients", "live", lambda stack, s: live.measure_live(stack, seconds=s)),
    "backfill": Part("backfill", "backfill", lambda stack, _: backfill.measure(stack), ("audit",)),  # it would help
    "drain": Part("how fast a backlog reaches Kafka", "drain", lambda stack, _: measure_drain(stack), READERS),
    "outboxes": Part(
        "one, two and four outboxes",
        "outboxes",
        lambda stack, s: outboxes.compare(stack, backlog=BACKLOG, rate=500, seconds=s),
        READERS,
    ),
}


def run_on_a_stack(work: Callable[[Stack], Awaitable[Result]]) -> Result:
    """What the work gives, on a system of its own that is gone afterwards."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing of it is left over
    state_dir = Path(tempfile.mkdtemp(prefix="chat4all-bench-"))
    stack = Stack(StackConfig.isolated(ROOT, state_dir))
    try:
        stack.up(report=print)

        async def run() -> Result:
            return await work(stack)

        return uvloop.run(run())
    finally:
        stack.down()
        stack.wipe()
        shutil.rmtree(state_dir, ignore_errors=True)


def compare_files(paths: list[str]) -> int:
    """0: nothing is worse beyond noise; 1: something is; 64: a file is none of ours."""
    try:
        earlier, later = (json.loads(Path(path).read_text("utf-8")) for path in paths)
        compared = comparison.compare(earlier, later)
    except OSError as error:
        print(f"{error.filename} cannot be read: {error.strerror}. Name two files that a run wrote.", file=sys.stderr)
        return 64
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        print(f"One of {', '.join(paths)} does not hold benchmark results ({problem}).", file=sys.stderr)
        return 64
    print(comparison.render(compared))
    return 1 if compared.is_worse else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)} [all]; or one of the commands above")
    parser.add_argument("--seconds", type=float, help="length of each measurement [30; capacity 10]")
    parser.add_argument(
        "--quick", action="store_true", help="a short run that only shows that everything can be measured"
    )
    parser.add_argument("--print-only", action="store_true", help="write no file")
    parser.add_argument("--output", type=Path, help="write the results of this run to this file alone")
    arguments = parser.parse_args()
    command = arguments.parts[0] if arguments.parts else ""
    if command == "compare":
        if len(arguments.parts) != 3:
            parser.error("compare takes two files: python -m tests.benchmarks compare docs/benchmarks.json later.json")
    elif command in ("page", "capacity"):
        if len(arguments.parts) != 1:
            parser.error(f"{command} stands alone")
    elif arguments.parts and arguments.quick:
        parser.error("--quick stands alone: it has its own parts")
    elif unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    return arguments


def main() -> int:
    """The command."""
    arguments = parse()
    parts: list[str] = arguments.parts
    if parts[:1] == ["compare"]:
        return compare_files(parts[1:])
    earlier: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if parts == ["page"]:
        write_page(earlier)
        return 0
    failed: list[str] = []
    if arguments.quick:
        measured = run_on_a_stack(lambda stack: measure_quickly(stack, arguments.seconds or QUICK_SECONDS))
    else:
        seconds = arguments.seconds or (10.0 if parts == ["capacity"] else 30.0)
        measured, failed = run_on_a_stack(lambda stack: measure(stack, parts or list(PARTS), seconds))
    machine = describe_machine()
    print(render({"machine": machine, **measured}))
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": machine, **measured}, indent=2) + "\n", "utf-8")
    elif not (arguments.print_only or arguments.quick):
        results = {**(earlier if parts else {}), "machine": machine, **measured}
        RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
        write_page(results)
    if failed:
        print(f"Not measured, for the reasons above: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
