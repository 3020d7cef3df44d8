"""Processes and the machine under them."""

from __future__ import annotations

from infra.grafana.model import RATE, Board, Panel, Query, Row, Unit

MACHINE = Board(
    "chat4all-machine",
    "Chat4All: machine",
    "What the programs take of the machine.",
    (
        Row(
            "Programs",
            (
                Panel(
                    "Processor time by program",
                    "1 is one core. A Python program ends near 1: then run a second one.",
                    Unit.PLAIN,
                    (Query(f"sum by (job) (rate(process_cpu_seconds_total[{RATE}]))", "{{job}}"),),
                ),
                Panel(
                    "Memory by program",
                    "Resident memory. 200 MB is what the API and each worker are meant to stay below.",
                    Unit.BYTES,
                    (Query("sum by (job) (process_resident_memory_bytes)", "{{job}}"),),
                ),
                Panel(
                    "File descriptors by program",
                    "Of what is allowed. A live client takes one.",
                    Unit.SHARE,
                    (Query("max by (job) (process_open_fds / process_max_fds)", "{{job}}"),),
                ),
                Panel(
                    "Running since",
                    "Seconds since the program started: a saw-tooth is a program that keeps ending.",
                    Unit.SECONDS,
                    (Query("time() - max by (job) (process_start_time_seconds)", "{{job}}"),),
                ),
                Panel(
                    "Programs that answer",
                    "1 while Prometheus can ask the program.",
                    Unit.YES_NO,
                    (Query("min by (job) (up)", "{{job}}"),),
                ),
            ),
        ),
    ),
)
