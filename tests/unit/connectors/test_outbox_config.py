"""The committed outbox connector: no secret in it, nothing that loses events, names as schemas has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import connectors
from connectors.config_file import read_connector_file
from connectors.model import is_secret_key
from schemas.envelope import HEADER_EVENT_ID, HEADER_EVENT_TYPE, HEADER_SEQ, HEADER_TRACEPARENT
from schemas.topics import (
    CONNECTOR_HEARTBEAT,
    CONNECTOR_TOPIC_PREFIX,
    CONVERSATION_EVENTS,
    HEARTBEAT_TABLE,
)

OUTBOX = read_connector_file(Path(connectors.__file__).parent / "configs" / "outbox.json")
SETTINGS = OUTBOX.config
STRING_CONVERTER = "org.apache.kafka.connect.storage.StringConverter"

AGAINST_LOSS = [
    ("slot.name", "chat4all_outbox", "the slot that the migration made before the first row"),
    ("slot.failover", "true", "the slot goes along to a standby that is promoted"),
    ("publication.name", "chat4all_outbox", "the publication that the migration made"),
    ("publication.autocreate.mode", "disabled", "one made later would begin later"),
    ("plugin.name", "pgoutput", "the slot's own output plugin"),
    ("snapshot.mode", "no_data", "the outbox is always empty; the slot alone says where to begin"),
    (
        "offset.mismatch.strategy",
        "trust_offset",
        "a slot that is ahead of the stored offset stops the task: no silent hole",
    ),
    ("errors.tolerance", "none", "a record that cannot be sent stops the task instead of being dropped"),
    ("producer.override.acks", "all", "a record counts as sent when every replica in sync has it"),
    ("heartbeat.interval.ms", "5000", "the slot moves on while only other tables are written"),
    ("tasks.max", "1", "two readers of one slot lose events"),
    ("transforms.outbox.table.op.invalid.behavior", "fatal", "a changed outbox row is not skipped in silence"),
    ("transforms.outbox.table.expand.json.payload", "false", "expansion drops nulls and empty arrays"),
]

FOR_HEALING = [
    ("slot.max.retries", "2", "a slot that another session held is read again after a second or two"),
    ("slot.retry.delay.ms", "1000", "instead of 10"),
    ("retriable.restart.connector.wait.ms", "1000", "a database that is back is read again after 1 s instead of 10"),
]

FOR_LATENCY = [
    ("poll.interval.ms", "10"),
    ("max.batch.size", "1"),
    ("producer.override.linger.ms", "0"),
    ("provide.transaction.metadata", "false"),
    ("extended.headers.enabled", "false"),
    ("statistics.metrics.enabled", "false"),
]


@pytest.mark.parametrize(("key", "value", "why"), AGAINST_LOSS, ids=[key for key, _, _ in AGAINST_LOSS])
def test_it_has_the_settings_without_which_events_are_lost(key: str, value: str, why: str) -> None:
    assert SETTINGS.get(key) == value, why


@pytest.mark.parametrize(("key", "value", "why"), FOR_HEALING, ids=[key for key, _, _ in FOR_HEALING])
def test_it_has_the_settings_that_bring_it_back_within_seconds(key: str, value: str, why: str) -> None:
    assert SETTINGS.get(key) == value, why


@pytest.mark.parametrize(("key", "value"), FOR_LATENCY)
def test_it_has_the_settings_that_the_measured_latency_rests_on(key: str, value: str) -> None:
    assert SETTINGS.get(key) == value


def test_the_heartbeat_writes_to_a_table_that_is_captured() -> None:
    assert SETTINGS["heartbeat.action.query"].startswith("insert into cdc_heartbeat ")
    assert SETTINGS["table.include.list"] == "public.outbox,public.cdc_heartbeat"


def test_it_logs_in_with_what_the_environment_says_and_holds_no_secret() -> None:
    logins = {key for key in SETTINGS if key.startswith("database.") or is_secret_key(key)}
    assert logins == {f"database.{part}" for part in ("hostname", "port", "dbname", "user", "password")}
    for key in logins:
        assert re.fullmatch(r"\$\{env:CHAT4ALL_CDC_DATABASE_[A-Z]+\}", SETTINGS[key]), key


def test_its_topics_are_the_declared_ones() -> None:
    prefix = SETTINGS["topic.prefix"]
    assert prefix == CONNECTOR_TOPIC_PREFIX
    assert HEARTBEAT_TABLE.name == f"{prefix}.public.cdc_heartbeat"
    assert CONNECTOR_HEARTBEAT.name == f"__debezium-heartbeat.{prefix}"
    routed = SETTINGS["transforms.outbox.route.topic.replacement"]
    assert routed.replace("${routedByValue}", "conversation") == CONVERSATION_EVENTS.name


def test_only_the_outbox_is_routed() -> None:
    assert SETTINGS["transforms.outbox.predicate"] == SETTINGS["predicates"] == "isOutbox"
    pattern = re.compile(SETTINGS["predicates.isOutbox.pattern"])
    assert pattern.fullmatch(f"{CONNECTOR_TOPIC_PREFIX}.public.outbox")
    for other in (HEARTBEAT_TABLE.name, CONNECTOR_HEARTBEAT.name, f"{CONNECTOR_TOPIC_PREFIX}xpublic.outbox"):
        assert not pattern.fullmatch(other)


def test_its_headers_are_the_envelopes() -> None:
    placement = SETTINGS["transforms.outbox.table.fields.additional.placement"]
    headers = dict(field.split(":header:") for field in placement.split(","))
    assert headers == {"type": HEADER_EVENT_TYPE, "seq": HEADER_SEQ, "traceparent": HEADER_TRACEPARENT}
    # The event router names this one itself.
    assert HEADER_EVENT_ID == "id" == SETTINGS["transforms.outbox.table.field.event.id"]


def test_key_value_and_headers_are_passed_on_as_text() -> None:
    assert {SETTINGS[f"{part}.converter"] for part in ("key", "value", "header")} == {STRING_CONVERTER}
    assert SETTINGS["tombstones.on.delete"] == "false"
