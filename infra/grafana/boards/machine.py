"""Processes, the servers that are not ours, and the machine under them."""

from __future__ import annotations

from infra.grafana.model import RATE, Board, Panel, Query, Row, Unit, rate

MACHINE = Board(
    "chat4all-machine",
    "Chat4All: machine",
    "What the programs take of the machine, and how PostgreSQL, Redis and the machine itself are.",
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
        Row(
            "PostgreSQL",
            (
                Panel(
                    "Transactions",
                    "Committed and rolled back. A refused command is a rollback; many are worth a look.",
                    Unit.PER_SECOND,
                    (
                        rate("pg_stat_database_xact_commit", "committed", where='datname="chat4all"'),
                        rate("pg_stat_database_xact_rollback", "rolled back", where='datname="chat4all"'),
                    ),
                ),
                Panel(
                    "Connections",
                    "By state, of those that are allowed.",
                    Unit.COUNT,
                    (
                        Query("sum by (state) (pg_stat_activity_count)", "{{state}}"),
                        Query("max(pg_settings_max_connections)", "allowed"),
                    ),
                ),
                Panel(
                    "Longest transaction",
                    "One that lasts keeps dead rows and, with them, everything slow.",
                    Unit.SECONDS,
                    (Query("max(pg_stat_activity_max_tx_duration)", "longest"),),
                ),
                Panel(
                    "Transactions that are not frozen",
                    "VACUUM keeps it near 200 million. Above a thousand million something holds it back; at 2.1"
                    " thousand million PostgreSQL takes no writes.",
                    Unit.COUNT,
                    (Query("max(supervise_transaction_id_age)", "oldest"),),
                ),
            ),
        ),
        Row(
            "Redis",
            (
                Panel(
                    "Memory",
                    "What the tables take.",
                    Unit.BYTES,
                    (Query("max(redis_memory_used_bytes)", "used"),),
                ),
                Panel(
                    "Commands",
                    "A script's call is one.",
                    Unit.PER_SECOND,
                    (rate("redis_commands_processed_total", "commands"),),
                ),
                Panel(
                    "Evicted keys",
                    "Redis threw them away for want of memory: tables are rebuilt from PostgreSQL, at its cost.",
                    Unit.PER_SECOND,
                    (rate("redis_evicted_keys_total", "evicted"),),
                ),
            ),
        ),
        Row(
            "The machine itself",
            (
                Panel(
                    "Processors",
                    "Share of all cores that is used, by what for. Near 1 everything queues.",
                    Unit.SHARE,
                    (
                        Query(
                            f'sum by (mode) (rate(node_cpu_seconds_total{{mode!="idle"}}[{RATE}]))'
                            f" / scalar(count(count by (cpu) (node_cpu_seconds_total)))",
                            "{{mode}}",
                        ),
                    ),
                ),
                Panel(
                    "Memory that is left",
                    "Of all that there is.",
                    Unit.SHARE,
                    (Query("min(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)", "left"),),
                ),
                Panel(
                    "Disk that is left",
                    "By mount point. PostgreSQL stops when its disk is full.",
                    Unit.SHARE,
                    (
                        Query(
                            "min by (mountpoint) (node_filesystem_avail_bytes / (node_filesystem_size_bytes > 0))",
                            "{{mountpoint}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
