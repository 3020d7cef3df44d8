"""`python -m stream_apps.timeline.replay`: reads the topics again from a time on, into empty tables.

For a new Redis beside the one in use: another server, or another database of the same. The tables get epochs of their
own. What lies before that time, or is no longer in Kafka, comes from Postgres.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from schemas import redis_keys
from schemas.topics import CONVERSATION_EVENTS, RECEIPT_EVENTS
from stream_apps.clients import make_redis
from stream_apps.log_reader import LogUnavailable
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder
from stream_apps.records import Record
from stream_apps.redis_tables.tables import RedisTables
from stream_apps.settings import StreamSettings
from stream_apps.timeline.projection import project, project_receipts

EXIT_CODES = (
    "Exit codes: 0 done; 1 the tables are not empty, or Kafka did not bring what it has; 2 the command line is wrong; 3"
    " Kafka, Redis or Postgres does not answer."
)
BATCH_RECORDS = 2000
READ_MS = 1000
MOST_EMPTY_READS = 15
REPORT_SECONDS = 2.0


class TablesNotEmpty(Exception):
    """The Redis to replay into holds tables."""


class ReplayStalled(Exception):
    """Kafka did not bring what it has, for too long."""


@dataclass(slots=True)
class Replayed:
    """What a replay did. `poison` could not be read; `rebuilt` conversations came from Postgres, because their first
    record was not that of their first entry."""

    records: int = 0
    applied: int = 0
    duplicates: int = 0
    rebuilt: int = 0
    receipts: int = 0
    poison: int = 0


class Replay:
    """Applies records to tables as the timeline app does, but for what only live sessions and operators want: nobody is
    told of who joined, and poison is counted, not set aside once more. Raises LogUnavailable, redis.RedisError."""

    def __init__(self, log: LogScanner, redis: Redis) -> None:
        self._log = log
        self._redis = redis
        self._tables = RedisTables(redis)
        self._rebuilder = Rebuilder(log, redis)
        self.done = Replayed()

    async def require_empty(self) -> None:
        """Raises TablesNotEmpty."""
        async for key in self._redis.scan_iter(match=redis_keys.head_key("*"), count=1000):
            raise TablesNotEmpty(
                f"This Redis holds tables ({key.decode()}, for one). A replay goes into an empty one: name another"
                " server (CHAT4ALL_REDIS_HOST, _PORT) or --redis-database, or empty it."
            )

    async def apply(self, records: Sequence[Record]) -> None:
        """Records of both topics, each partition's in order."""
        self.done.records += len(records)
        await self._apply_events([record for record in records if record.topic == CONVERSATION_EVENTS.name])
        receipts = project_receipts([record for record in records if record.topic == RECEIPT_EVENTS.name])
        self.done.poison += len(receipts.poison)
        if receipts.receipts:
            await self._tables.advance_receipts(receipts.receipts)
            self.done.receipts += sum(len(some) for some in receipts.receipts.values())

    async def _apply_events(self, records: Sequence[Record]) -> None:
        changes = project(records)
        self.done.poison += len(changes.poison)
        if changes.memberships:
            incomplete = await self._tables.note_memberships(changes.memberships)
            for user_id, stays in (await self._log.read_stays_of_users(incomplete)).items():
                await self._tables.build_user(user_id, stays)
        if not changes.events:
            return
        gaps: list[str] = []
        for conversation_id, result in (await self._tables.apply(changes.events)).items():
            self.done.applied += result.applied
            self.done.duplicates += result.duplicates
            if result.gap_after is not None:
                gaps.append(conversation_id)
        if gaps:
            self.done.rebuilt += (await self._rebuilder.rebuild(gaps)).rebuilt


async def read_topics(bootstrap: str, since: datetime, replay: Replay) -> None:
    """Replays what the topics hold from a time until now. Raises KafkaError, ReplayStalled, and what Replay raises."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100)
    try:
        await consumer.start()
        partitions = [
            TopicPartition(topic.name, number)
            for topic in (CONVERSATION_EVENTS, RECEIPT_EVENTS)
            for number in range(topic.partitions)
        ]
        ends = await consumer.end_offsets(partitions)
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, round(since.timestamp() * 1000)))
        positions = {one: ends[one] if found[one] is None else found[one].offset for one in partitions}
        consumer.assign(partitions)
        for partition, offset in positions.items():
            consumer.seek(partition, offset)
        empty = 0
        reported_at = time.monotonic()
        while any(positions[one] < ends[one] for one in partitions):
            taken = await consumer.getmany(timeout_ms=READ_MS, max_records=BATCH_RECORDS)
            empty = 0 if taken else empty + 1
            if empty > MOST_EMPTY_READS:
                raise ReplayStalled("Kafka did not bring what it has; what was replayed stays.")
            await replay.apply([record for records in taken.values() for record in records])
            for partition, records in taken.items():
                positions[partition] = records[-1].offset + 1
            if time.monotonic() - reported_at >= REPORT_SECONDS:
                reported_at = time.monotonic()
                left = sum(max(0, ends[one] - positions[one]) for one in partitions)
                print(f"{replay.done.records} records replayed, {left} to go", file=sys.stderr, flush=True)
    finally:
        await consumer.stop()


cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command(
    epilog="Example: python -m stream_apps.timeline.replay --since 2026-11-26T20:00:00Z --redis-database 1."
    f" {EXIT_CODES}"
)
def replay(
    since: Annotated[str, typer.Option(help="Records that Kafka got at this time or later (ISO 8601).")],
    redis_database: Annotated[
        int | None, typer.Option(min=0, help="Number of the Redis database to fill [CHAT4ALL_REDIS_DATABASE].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Read conversation.events and receipt.events again from a time until now, into empty tables under new epochs.

    The Redis is that of CHAT4ALL_REDIS_HOST, _PORT and _PASSWORD. Consumer groups are not touched. Afterwards
    `python -m stream_apps.audit check --full --no-kafka`, with the same settings, says whether the tables are right."""
    try:
        start = datetime.fromisoformat(since)
    except ValueError as error:
        raise typer.BadParameter(f"--since {since!r} is no time; write it as 2026-11-26T20:00:00Z") from error
    settings = StreamSettings()
    if redis_database is not None:
        settings = settings.model_copy(update={"redis_database": redis_database})
    logging.basicConfig(level=logging.CRITICAL)
    try:
        done = uvloop.run(_run(settings, start if start.tzinfo else start.replace(tzinfo=UTC)))
    except (TablesNotEmpty, ReplayStalled) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except (KafkaError, RedisError, LogUnavailable) as error:
        typer.echo(f"error: {type(error).__name__}: {error}. Empty the tables before you try again.", err=True)
        raise typer.Exit(3) from error
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        typer.echo(
            f"{done.records} records: {done.applied} events applied, {done.duplicates} duplicates, {done.receipts}"
            f" receipts, {done.rebuilt} conversations from Postgres, {done.poison} unreadable."
        )


async def _run(settings: StreamSettings, since: datetime) -> Replayed:
    redis = make_redis(settings, timeout_seconds=30)
    login = settings.database_arguments() | {"application_name": "chat4all replay"}
    async with redis, LogScanner(login) as log:
        own = Replay(log, redis)
        await own.require_empty()
        await read_topics(settings.kafka_bootstrap, since, own)
    return own.done


def main() -> None:
    """The command."""
    cli(prog_name="python -m stream_apps.timeline.replay")


if __name__ == "__main__":
    main()
