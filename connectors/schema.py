"""What the settings of a declared connector must look like, before Connect is asked. Pure.

Says only what is wrong whatever the database holds: kinds of values, settings that are missing, secrets that stand in
the file. Connect's own validation knows the rest, and logs in to do so."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from connectors.model import Config, holds_secret, is_reference

DEBEZIUM_POSTGRES = "io.debezium.connector.postgresql.PostgresConnector"

_REFERENCE = re.compile(r"\$\{([a-z]+):([^}]*)\}")
PROVIDERS = ("env", "file")
"""The ConfigProviders that infra/connect sets up."""


def _number(least: int) -> AfterValidator:
    def check(value: str) -> str:
        if not is_reference(value) and (not re.fullmatch(r"-?\d{1,18}", value) or int(value) < least):
            raise ValueError(f"must be a whole number of {least} or more")
        return value

    return AfterValidator(check)


def _text(pattern: str, sentence: str) -> AfterValidator:
    def check(value: str) -> str:
        if not is_reference(value) and not re.fullmatch(pattern, value):
            raise ValueError(sentence)
        return value

    return AfterValidator(check)


def _one_of(*values: str) -> AfterValidator:
    return _text("|".join(map(re.escape, values)), f"must be one of {', '.join(values)}")


Filled = Annotated[str, _text(r"(?s).*\S.*", "must not be empty")]
Milliseconds = Annotated[str, _number(0)]
Count = Annotated[str, _number(1)]
Flag = Annotated[str, _one_of("true", "false")]
JavaClass = Annotated[str, _text(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*", "must be the name of a Java class")]


class AnySettings(BaseModel):
    """What holds for the settings of every connector."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[
        str,
        _text(
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
            "must be 1 to 100 letters, digits, dots, dashes and underscores, and begin with a letter or a digit",
        ),
    ]
    connector_class: JavaClass = Field(alias="connector.class")
    tasks_max: Count = Field("1", alias="tasks.max")
    errors_tolerance: Annotated[str, _one_of("none", "all")] = Field("none", alias="errors.tolerance")
    key_converter: JavaClass | None = Field(None, alias="key.converter")
    value_converter: JavaClass | None = Field(None, alias="value.converter")
    header_converter: JavaClass | None = Field(None, alias="header.converter")


class DebeziumPostgresSettings(AnySettings):
    """What holds besides for Debezium's PostgreSQL connector (debezium.io, "Debezium connector for PostgreSQL",
    connector properties)."""

    tasks_max: Literal["1"] = Field("1", alias="tasks.max")
    database_hostname: Filled = Field(alias="database.hostname")
    database_port: Annotated[str, _number(1)] = Field("5432", alias="database.port")
    database_dbname: Filled = Field(alias="database.dbname")
    database_user: Filled = Field(alias="database.user")
    database_password: Filled = Field(alias="database.password")
    topic_prefix: Annotated[
        str, _text(r"[A-Za-z0-9._-]{1,100}", "must be letters, digits, dots, dashes and underscores")
    ] = Field(alias="topic.prefix")
    plugin_name: Annotated[str, _one_of("pgoutput", "decoderbufs")] = Field("decoderbufs", alias="plugin.name")
    slot_name: Annotated[
        str, _text(r"[a-z0-9_]{1,63}", "must be 1 to 63 lower-case letters, digits and underscores")
    ] = Field("debezium", alias="slot.name")
    slot_failover: Flag = Field("false", alias="slot.failover")
    slot_drop_on_stop: Flag = Field("false", alias="slot.drop.on.stop")
    slot_max_retries: Milliseconds = Field("6", alias="slot.max.retries")
    slot_retry_delay_ms: Milliseconds = Field("10000", alias="slot.retry.delay.ms")
    publication_name: Filled = Field("dbz_publication", alias="publication.name")
    publication_autocreate_mode: Annotated[str, _one_of("all_tables", "disabled", "filtered", "no_tables")] = Field(
        "all_tables", alias="publication.autocreate.mode"
    )
    offset_mismatch_strategy: Annotated[
        str, _one_of("no_validation", "trust_offset", "trust_slot", "trust_greater_lsn")
    ] = Field("no_validation", alias="offset.mismatch.strategy")
    heartbeat_interval_ms: Milliseconds = Field("0", alias="heartbeat.interval.ms")
    poll_interval_ms: Count = Field("500", alias="poll.interval.ms")
    max_batch_size: Count = Field("2048", alias="max.batch.size")
    max_queue_size: Count = Field("8192", alias="max.queue.size")
    retriable_restart_connector_wait_ms: Milliseconds = Field("10000", alias="retriable.restart.connector.wait.ms")


SCHEMAS: dict[str, type[AnySettings]] = {DEBEZIUM_POSTGRES: DebeziumPostgresSettings}


def objections(config: Config) -> list[str]:
    """What is wrong with the settings, a sentence each, sorted by setting; none of them repeats a value."""
    found: list[tuple[str, str]] = []
    try:
        SCHEMAS.get(config.get("connector.class", ""), AnySettings).model_validate(dict(config))
    except ValidationError as error:
        found += [_objection(dict(each)) for each in error.errors(include_url=False, include_input=False)]
    for key, value in config.items():
        if holds_secret(key, value):
            found.append((key, "holds a secret: let it stand where Connect runs, and write ${env:NAME} here"))
        for provider, rest in _REFERENCE.findall(value):
            if provider not in PROVIDERS or not rest:
                found.append(
                    (key, f"refers to ${{{provider}:…}}, and Connect resolves {' and '.join(PROVIDERS)} alone")
                )
    return [f"{key}: {sentence}." for key, sentence in sorted(set(found))]


def _objection(error: dict[str, Any]) -> tuple[str, str]:
    key = str(error["loc"][0])
    if error["type"] == "missing":
        return key, "is missing"
    if error["type"] == "literal_error":
        return key, f"must be {error['ctx']['expected']}".replace("'", "")
    return key, str(error["msg"]).removeprefix("Value error, ")
