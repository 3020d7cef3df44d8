"""The page: results as Markdown tables between two marks of docs/benchmarks.md, with their plots beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import capacity, live
from tests.benchmarks.figures import TARGETS, read_figures
from tests.benchmarks.idle import CDC_PROGRAMS
from tests.benchmarks.plots import plots_of, write_plots
from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def render(results: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    sections = [_render_machine(results["machine"])]
    if reached := render_targets(results):
        sections.append(reached)
    for part, render_part in _PARTS.items():
        if part in results:
            sections += render_part(results[part])
    return "\n\n".join(sections)


def _render_machine(machine: dict[str, Any]) -> str:
    names = (("PostgreSQL", "postgresql"), ("Kafka", "kafka"), ("Debezium", "debezium"), ("Redis", "redis"))
    versions = "".join(f", {name} {machine[key]}" for name, key in names if key in machine)
    return (
        f"Measured {machine['date']} on {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB,"
        f" Linux {machine['kernel']}, Python {machine['python']}{versions}; everything, the generator too, on this one"
        f" machine. Five million additions in a Python loop took {machine['python_loop_seconds']} s."
    )


def _render_latency(latency: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
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
        "**Where the CPU time goes, percent of one core**\n\n" + table(("rate", *programs, "generator", "sum"), rows)
    )
    return sections


def _render_gateway(runs: Any) -> list[str]:
    def both(of: list[dict[str, Any]], what: str) -> str:
        return ", ".join(f"{run[what]['p50']} / {run[what]['p99']}" for run in of)

    rows = [
        (
            f"{rate:g}/s",
            "through the gateway" if via_gateway else "at the programs' ports",
            both(of, "acknowledged_ms"),
            both(of, "received_ms"),
            ", ".join(f"{run['cpu_percent']['gateway']} %" for run in of),
        )
        for rate in sorted({run["rate_per_second"] for run in runs})
        for via_gateway in (False, True)
        for of in [[run for run in runs if (run["rate_per_second"], run["via_gateway"]) == (rate, via_gateway)]]
    ]
    header = ("rate", "way", "acknowledged p50 / p99 ms", "received p50 / p99 ms", "the gateway's CPU")
    return ["**Through the gateway, each measured twice (A B B A)**\n\n" + table(header, rows)]


def _render_insert_to_kafka(cdc: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
    rows = [
        (name, *(f"{cdc[key][0][p]} / {cdc[key][1][p]}" for p in ("p50", "p95", "p99")))
        for name, key in (("ours", "ours"), ("Debezium's defaults", "defaults"))
    ]
    sections.append(
        f"**Insert → Kafka consumer, {cdc['rate_per_second']}/s open loop, each measured twice (A B B A), ms**\n\n"
        + table(("settings", "p50", "p95", "p99"), rows)
        + f"\n\nDefaults / ours at p50: {cdc['p50_ratio']}."
    )
    return sections


def _render_polled(polled: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
    rows = [
        (name, *(f"{polled[key][0][p]} / {polled[key][1][p]}" for p in ("p50", "p95", "p99")))
        for name, key in (("ours", "ours"), ("poller", "poller"))
    ]
    sections.append(
        f"**Insert → Kafka consumer against a poller of the outbox every {polled['poll_milliseconds']} ms,"
        f" {polled['rate_per_second']}/s open loop, each measured twice (A B B A), ms**\n\n"
        + table(("way", "p50", "p95", "p99"), rows)
        + f"\n\nPoller / ours: {polled['p50_ratio']} at p50, {polled['p99_ratio']} at p99."
    )
    return sections


def _render_throughput(throughput: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
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
    return sections


def _render_overload(overload: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
    rows = [
        (
            name,
            f"{run['rate_per_second']}/s",
            run["accepted_per_second"],
            f"{run['accepted_under_load_ms']['p50']} / {run['accepted_under_load_ms']['p99']}",
            run["accepted_after_the_load"],
            ", ".join(f"{outcome}: {count}" for outcome, count in sorted(run["outcomes"].items())),
            f"{run['generator_cpu_percent']} %",
        )
        for name, run in (("a quarter of the peak", overload["unloaded"]), ("overload", overload["overloaded"]))
    ]
    columns = (
        "",
        "offered",
        "accepted/s",
        "p50 / p99 ms of those",
        "accepted when the load had ended",
        "outcomes",
        "generator's CPU",
    )
    sections.append(
        f"**Overload, open loop, stream side stopped; a closed loop's peak was {overload['peak_per_second']}/s**"
        "\n\n" + table(columns, rows)
    )
    return sections


def _render_log_writer(writer: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
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
    return sections


def _render_timeline(backlog: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
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
    return sections


def _render_drain(drain: Any) -> list[str]:
    sections: list[str] = []
    sections.append(
        f"**A backlog of {drain['backlog']} records through one outbox into Kafka**:"
        f" {' / '.join(str(rate) for rate in drain['records_per_second'])} records/s."
    )
    return sections


def _render_idle(idle: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
    rows = [(name, percent, idle["resident_mib"].get(name, "")) for name, percent in idle["cpu_percent"].items()]
    sections.append(
        "**The system while nothing is sent**\n\n"
        + table(("program", "percent of one core", "resident MiB"), rows)
        + f"\n\nThe change data capture leg ({', '.join(CDC_PROGRAMS)}): {idle['cdc_leg_percent']} % of a core."
    )
    return sections


def _render_memory(memory: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
    rows = list(memory["resident_mib"].items())
    sections.append("**Memory after the load above**\n\n" + table(("program", "resident MiB"), rows))
    return sections


def _render_takeover(takeover: Any) -> list[str]:
    sections: list[str] = []
    sections.append(
        f"**A worker of two is killed at {takeover['rate_per_second']:g} messages/s, and not started again**: the"
        f" longest wait of a message was {takeover['timeline_seconds']} s for a timeline worker,"
        f" {takeover['connect_seconds']} s for a Connect worker that ran the connector."
    )
    return sections


def _render_outboxes(several: Any) -> list[str]:
    sections: list[str] = []
    rows: list[tuple[Any, ...]]
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
    return sections


def _render_backfill(filled: Any) -> list[str]:
    sections: list[str] = []
    sections.append(
        f"**Backfill** of {filled['conversations']} conversations into an empty Redis, the whole system running,"
        f" idle: {filled['entries']} entries in {filled['seconds']} s ({filled['entries_per_second']}/s)."
    )
    return sections


_PARTS: dict[str, Callable[[Any], list[str]]] = {
    "latency": _render_latency,
    "gateway": _render_gateway,
    "insert_to_kafka": _render_insert_to_kafka,
    "polled": _render_polled,
    "throughput": _render_throughput,
    "overload": _render_overload,
    "log_writer": _render_log_writer,
    "timeline": _render_timeline,
    "drain": _render_drain,
    "idle": _render_idle,
    "memory": _render_memory,
    "takeover": _render_takeover,
    "outboxes": _render_outboxes,
    "live": lambda found: [live.render(found)],
    "backfill": _render_backfill,
    "capacity": lambda found: [capacity.render(found)],
}
"""Part of the results -> its sections, in the order of the page."""


def render_targets(results: dict[str, Any]) -> str:
    """The targets of what was measured, each beside its baseline; empty if there is none."""
    figures = read_figures(results)
    rows = []
    for target in TARGETS:
        if (figure := figures.get(target.figure)) is None:
            continue
        sign = "≤" if figure.better == "lower" else "≥"
        beside = figures.get(target.baseline) if target.baseline else None
        rows.append(
            (
                target.figure,
                figure.text(),
                f"{target.baseline}: {beside.text()}" if beside else "",
                f"{sign} {target.bound:g}" + (f" (aim {target.aim:g})" if target.aim else ""),
                "yes" if target.is_reached(figure) else "no",
            )
        )
    header = ("what", "measured", "beside it", "target", "reached")
    return "**Targets, for this machine and everything on it**\n\n" + table(header, rows) if rows else ""


def render_page(results: dict[str, Any], page: str) -> str:
    """The page with these figures and references to their plots between its marks."""
    images = "\n".join(f"![{plot.title}]({PLOTS.name}/{name})" for name, plot in plots_of(results).items())
    figures = f"<!-- figures -->\n\n{images}\n\n{render(results)}\n\n<!-- end of figures -->"
    return re.sub(r"(?s)<!-- figures -->.*<!-- end of figures -->", lambda _: figures, page)


def write_page(results: dict[str, Any], page: Path = PAGE, plots: Path = PLOTS) -> None:
    """Writes the page and its plots anew."""
    page.write_text(render_page(results, page.read_text("utf-8")), "utf-8")
    write_plots(results, plots)
