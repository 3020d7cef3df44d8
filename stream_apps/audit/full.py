"""A full pass: every chosen conversation in Postgres and Redis, and the topic from its beginning; repairs on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from aiokafka.errors import KafkaTimeoutError

from stream_apps.audit.checker import Copied, Fault, Follower, Kind, Place, lacking
from stream_apps.audit.comparison import Comparison
from stream_apps.audit.tables import TableReader
from stream_apps.audit.topic import TopicReader
from stream_apps.log_scanner import FIRST_ID, LogScanner, Touched
from stream_apps.rebuilding import Rebuilder, split

PAGE_CONVERSATIONS = 2000
GROUP_CONVERSATIONS = 100
GROUP_ENTRIES = 4000
MOST_CONVERSATIONS = 2_000_000
TAKE_TIMEOUT_MS = 1000
MOST_EMPTY_TAKES = 15


@dataclass(slots=True)
class Report:
    """What a pass found. `left` is what is still wrong after a repair, and the same as `faults` without one;
    `redelivered` are records that Kafka carries more than once, which it may."""

    conversations: int = 0
    entries: int = 0
    records: int = 0
    redelivered: int = 0
    unreadable: int = 0
    faults: list[Fault] = field(default_factory=list)
    left: list[Fault] = field(default_factory=list)
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What a pass looks at: these conversations, or those touched after a time, or (neither) all."""

    ids: tuple[str, ...] = ()
    since: datetime | None = None

    @property
    def is_all(self) -> bool:
        """Whether it leaves nothing out."""
        return not self.ids and self.since is None


class FullPass:
    """A fault counts when it is there twice, `confirm_seconds` apart: the system may be at work meanwhile. Raises
    LogUnavailable, redis.RedisError and KafkaError."""

    def __init__(self, log: LogScanner, tables: TableReader, rebuilder: Rebuilder, *, confirm_seconds: float) -> None:
        self._log = log
        self._tables = tables
        self._rebuilder = rebuilder
        self._confirm_seconds = confirm_seconds
        self._comparison = Comparison(log, tables)

    async def run(self, scope: Scope, topic: TopicReader | None, *, repair: bool = False) -> Report:
        """`topic` is opened, read up to where it ends now, and left to the caller; without it Kafka is passed over."""
        report = Report()
        suspects: list[Fault] = []
        expected: dict[str, Touched] = {}
        async for page in self._pages(scope):
            expected.update(page)
            last_seqs = {name: seqs.last_seq for name, seqs in page.items()}
            for group in split(last_seqs, entries=GROUP_ENTRIES, conversations=GROUP_CONVERSATIONS):
                suspects += await self._comparison.compare_whole(group)
                report.conversations += len(group)
        if scope.is_all:
            async for ids in self._tables.scan_heads():
                suspects += await self._comparison.find_unknown(ids)
        in_kafka: list[Fault] = []
        if topic is not None:
            in_kafka = await self._read_topic(topic, scope, expected, report)
        report.faults = in_kafka + await self._confirmed(suspects)
        report.left = report.faults
        if repair and report.faults:
            report.left = await self._repair(report)
        report.entries = self._comparison.entries
        return report

    async def _pages(self, scope: Scope) -> AsyncIterator[dict[str, Touched]]:
        if scope.ids:
            known = await self._log.read_last_seqs(scope.ids)
            yield {name: Touched(1, known.get(name, 0)) for name in scope.ids}
        elif scope.since is not None:
            yield await self._log.read_touched(since=scope.since, until=await self._log.read_clock())
        else:
            after = FIRST_ID
            while page := await self._log.read_conversations(after=after, limit=PAGE_CONVERSATIONS):
                yield {name: Touched(1, last_seq) for name, last_seq in page.items()}
                after = next(reversed(page))

    async def _confirmed(self, suspects: Sequence[Fault]) -> list[Fault]:
        """Those that are still there."""
        if not suspects:
            return []
        await asyncio.sleep(self._confirm_seconds)
        signs = {_sign(fault) for fault in suspects}
        return [fault for fault in await self._look_again(suspects) if _sign(fault) in signs]

    async def _look_again(self, faults: Iterable[Fault]) -> list[Fault]:
        names = list(dict.fromkeys(fault.conversation_id for fault in faults))
        found: list[Fault] = []
        for at in range(0, len(names), GROUP_CONVERSATIONS):
            found += await self._comparison.compare_whole(names[at : at + GROUP_CONVERSATIONS])
        return found

    async def _repair(self, report: Report) -> list[Fault]:
        """Rebuilds the tables that are wrong; what is still wrong, and what no rebuild can put right."""
        beyond = [fault for fault in report.faults if fault.place is not Place.REDIS]
        wrong = [fault for fault in report.faults if fault.place is Place.REDIS]
        names = list(dict.fromkeys(fault.conversation_id for fault in wrong))
        for at in range(0, len(names), GROUP_CONVERSATIONS):
            done = await self._rebuilder.rebuild(names[at : at + GROUP_CONVERSATIONS], force=True)
            await self._rebuilder.drop(done.unknown)
            report.repaired += done.rebuilt + len(done.unknown)
        return beyond + [fault for fault in await self._look_again(wrong) if fault.place is Place.REDIS]

    async def _read_topic(
        self, topic: TopicReader, scope: Scope, expected: dict[str, Touched], report: Report
    ) -> list[Fault]:
        # What was there when the conversations were read has had this long to reach Kafka.
        await asyncio.sleep(self._confirm_seconds)
        await topic.open(since=scope.since)
        follower = Follower(most=MOST_CONVERSATIONS)
        faults: list[Fault] = []
        doubtful: list[Copied] = []
        empty = 0
        while not topic.is_at_noted_end():
            taken, count = await topic.take(timeout_ms=TAKE_TIMEOUT_MS)
            empty = 0 if count else empty + 1
            if empty > MOST_EMPTY_TAKES:
                raise KafkaTimeoutError("Kafka did not bring what it has")
            records = [record for record in taken if not scope.ids or record.conversation_id in expected]
            report.records += len(records)
            for record in records:
                kind = follower.follow(record.conversation_id, record.entry.seq)
                if kind is Kind.REORDER:
                    faults.append(out_of_order(record))
                report.redelivered += kind is Kind.DUPLICATE
            wrong = await self._comparison.compare_records(records)
            places = {(fault.conversation_id, fault.seq) for fault in wrong}
            doubtful += [record for record in records if (record.conversation_id, record.entry.seq) in places]
        report.unreadable = topic.unreadable
        if doubtful:
            await asyncio.sleep(self._confirm_seconds)
            faults += await self._comparison.compare_records(doubtful)
        return faults + follower.holes() + lacking(follower, expected, is_whole=topic.is_whole)


def out_of_order(record: Copied) -> Fault:
    """A record that came after a later one."""
    where = f"partition {record.partition}, offset {record.offset}: it comes after later ones"
    return Fault(Place.KAFKA, Kind.REORDER, record.conversation_id, record.entry.seq, where)


def _sign(fault: Fault) -> tuple[str, str, str, int]:
    return fault.place, fault.kind, fault.conversation_id, fault.seq
