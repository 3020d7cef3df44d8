"""Change data capture: the slot, the write-ahead log that it holds, the connector."""

from __future__ import annotations

from infra.grafana.model import Board, Look, Panel, Query, Row, Unit, or_zero, rate

CDC = Board(
    "chat4all-cdc",
    "Chat4All: change data capture",
    "From the outbox in PostgreSQL to Kafka: replication slot, write-ahead log, Debezium, supervise.",
    (
        Row(
            "The replication slot",
            (
                Panel(
                    "Write-ahead log that the slot holds back",
                    "What the connector has not confirmed, as the API sees it. It falls back to near zero every"
                    " second or"
                    " so; a line that only rises is a connector that stands still.",
                    Unit.BYTES,
                    (Query("max(ingest_api_slot_lag_bytes)", "held back"),),
                ),
                Panel(
                    "Room that is left",
                    "What the slot may still hold before PostgreSQL gives it up. Admission slows writes down before"
                    " that.",
                    Unit.BYTES,
                    (Query("min(ingest_api_wal_headroom_bytes)", "left"),),
                ),
                Panel(
                    "Age of the oldest unconfirmed position",
                    "How late the connector's confirmations are. From 300 s on batches are refused.",
                    Unit.SECONDS,
                    (Query("max(ingest_api_slot_lag_seconds)", "age"),),
                ),
            ),
        ),
        Row(
            "Debezium and Connect",
            (
                Panel(
                    "How late changes are read",
                    "Age of the newest change when the connector handled it. Clocks are one here: this is real time.",
                    Unit.MILLISECONDS,
                    (Query("max by (server) (debezium_streaming_milliseconds_behind_source)", "{{server}}"),),
                ),
                Panel(
                    "Changes read",
                    "What the connector has read from the slot, heartbeats among it.",
                    Unit.PER_SECOND,
                    (rate("debezium_streaming_events_total", "{{server}}", by="server"),),
                ),
                Panel(
                    "Reads the slot",
                    "Whether the connector has its connection to PostgreSQL.",
                    Unit.YES_NO,
                    (Query("min by (server) (debezium_streaming_connected)", "{{server}}"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Queue that is left",
                    "Changes that Debezium's queue can still take; near zero means that Kafka takes them too slowly.",
                    Unit.COUNT,
                    (Query("min by (server) (debezium_streaming_queue_remaining_events)", "{{server}}"),),
                ),
                Panel(
                    "Records given and written",
                    "What the connector gave Connect, and what Connect has sent to Kafka.",
                    Unit.PER_SECOND,
                    (
                        rate("kafka_connect_source_records_polled_total", "given"),
                        rate("kafka_connect_source_records_written_total", "written"),
                    ),
                ),
                Panel(
                    "Records not yet written",
                    "Given to Connect and on their way to Kafka.",
                    Unit.COUNT,
                    (Query("sum(kafka_connect_source_records_active)", "on their way"),),
                ),
            ),
        ),
        Row(
            "The connector, as supervise sees it",
            (
                Panel(
                    "Connectors that run",
                    "1 when the connector and all its tasks run. supervise restarts what failed within seconds.",
                    Unit.YES_NO,
                    (Query("min by (connector) (supervise_connector_running)", "{{connector}}"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Age of the heartbeat",
                    "The connector writes one every 5 s and reads it again: older than 30 s means that it does not"
                    " stream,"
                    " whatever Connect says.",
                    Unit.SECONDS,
                    (Query("max by (connector) (supervise_heartbeat_age_seconds)", "{{connector}}"),),
                ),
                Panel(
                    "Connectors that need a person",
                    "Above zero: see docs/operations.md, supervise, for the cause.",
                    Unit.COUNT,
                    (Query("sum(supervise_needs_person) or vector(0)", "need a person"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Not confirmed, by connector",
                    "Write-ahead log that is not confirmed to have reached Kafka.",
                    Unit.BYTES,
                    (Query("max by (connector) (supervise_slot_lag_bytes)", "{{connector}}"),),
                ),
                Panel(
                    "Kept for the slot, by connector",
                    "Write-ahead log that PostgreSQL keeps on disk for it.",
                    Unit.BYTES,
                    (Query("max by (connector) (supervise_slot_held_bytes)", "{{connector}}"),),
                ),
                Panel(
                    "What supervise did",
                    "Restarts and repairs by cause. A few are life; the same one again and again is a fault.",
                    Unit.PER_SECOND,
                    (or_zero(rate("supervise_actions_total", "{{action}} {{cause}}", by="action, cause")),),
                ),
            ),
        ),
        Row(
            "Who watches",
            (
                Panel(
                    "Connect answers",
                    "Whether supervise reaches Kafka Connect's REST.",
                    Unit.YES_NO,
                    (Query("max(supervise_connect_up)", "answers"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Supervise looked",
                    "Seconds since the last look. It looks once per second.",
                    Unit.SECONDS,
                    (Query("time() - max(supervise_last_look_timestamp_seconds)", "ago"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Settings that are not as declared",
                    "Somebody changed the connector by hand: `python -m connectors diff` says what.",
                    Unit.COUNT,
                    (Query("max by (connector) (supervise_different_settings)", "{{connector}}"),),
                    Look.NUMBER,
                ),
            ),
        ),
    ),
)
