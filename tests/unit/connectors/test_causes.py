"""What Connect showed of real faults is told apart."""

from __future__ import annotations

import pytest

from connectors.supervise.causes import Cause, classify

PSQL = "org.postgresql.util.PSQLException: "
SHOWN = [
    (
        "org.apache.kafka.connect.errors.ConnectException: Tolerance exceeded in error handler\n\tat x.y(Z.java:1)\n"
        "Caused by: java.lang.IllegalStateException: Unexpected update message received null, fail.\n",
        Cause.invalid_operation,
    ),
    (
        "io.debezium.DebeziumException: The connector is trying to read change stream starting at PostgresOffsetContext"
        " [sourceInfo=source_info[server='chat4all'db='chat4all', lsn=LSN{0/1A6CD38}]], but this is no longer available"
        " on the server. Reconfigure the connector to use a snapshot mode when needed.\n",
        Cause.slot_recreated,
    ),
    (
        "org.apache.kafka.connect.errors.ConnectException: Non-retriable failure obtaining database encoding;\n"
        f"Caused by: io.debezium.DebeziumException: Couldn't obtain encoding\nCaused by: {PSQL}FATAL: password"
        ' authentication failed for user "chat_cdc"\n',
        Cause.bad_credentials,
    ),
    (
        "org.apache.kafka.connect.errors.ConnectException: An exception occurred in the change event producer.\n"
        "Caused by: org.apache.kafka.connect.errors.ConnectException: Publication autocreation is disabled, please\n",
        Cause.publication_missing,
    ),
    (f'{PSQL}ERROR: replication slot "chat4all_outbox" is active for PID 27604\n', Cause.slot_held),
    (f'{PSQL}ERROR: replication slot "chat4all_outbox" does not exist\n', Cause.slot_missing),
    (f'{PSQL}ERROR: can no longer access replication slot "chat4all_outbox"\n', Cause.slot_lost),
    (f"{PSQL}ERROR: permission denied for table outbox\n", Cause.missing_privilege),
    (
        f"{PSQL}Connection to 127.0.0.1:5433 refused. Check that the hostname and port are correct\n",
        Cause.database_away,
    ),
    (f"{PSQL}FATAL: the database system is starting up\n", Cause.database_away),
    (f"{PSQL}FATAL: terminating connection due to administrator command\n", Cause.database_away),
    ("org.apache.kafka.common.errors.TimeoutException: Topic x not present in metadata\n", Cause.kafka_away),
    ("org.apache.kafka.common.errors.RecordTooLargeException: The message is 2000000 bytes\n", Cause.record_too_large),
    (
        "org.apache.kafka.connect.errors.ConnectException: Failed to find any class that implements Connector and\n",
        Cause.plugin_missing,
    ),
    (
        "java.lang.NullPointerException\n\tat io.debezium.transforms.outbox.EventRouterDelegate.apply(E.java:1)\n",
        Cause.unknown,
    ),
]


@pytest.mark.parametrize(("trace", "cause"), SHOWN)
def test_a_cause_is_read_from_the_trace(trace: str, cause: Cause) -> None:
    assert classify(trace) is cause
