"""Audit's looks: what was touched since the last one is compared; what has lasted is told and repaired."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from aiokafka.errors import KafkaError

from stream_apps.audit.checker import Copied, Fault, Follower, Kind, Place
from stream_apps.audit.comparison import Comparison, Window
from stream_apps.audit.full import out_of_order
from stream_apps.audit.settings import AuditSettings
from stream_apps.audit.suspects import Suspects
from stream_apps.audit.telemetry import AuditMetrics
from stream_apps.audit.topic import TAKE_RECORDS, TopicReader
from stream_apps.log_scanner import LogScanner, Touched
from stream_apps.rebuilding import Rebuilder, split

logger = logging.getLogger(__name__)

MOST_TAKES = 50
"""Of records, per look."""

WHOLE_CONVERSATIONS = 2
"""Of those touched, so many are compared with all that follows from their entries, at each look."""

WHOLE_SUSPECTS = 50
GROUP_CONVERSATIONS = 500
GROUP_ENTRIES = 5000
"""What one comparison takes."""

REPAIRED_AT_ONCE = 100
MOST_AWAITED = 50_000
KAFKA_RETRY_SECONDS = 10.0
KAFKA_MARGIN = timedelta(seconds=60)


class Auditor:
    """Looks. Raises LogUnavailable and redis.RedisError; the next look then takes up where this one began."""

    def __init__(
        self,
        settings: AuditSettings,
        log: LogScanner,
        comparison: Comparison,
        rebuilder: Rebuilder,
        topic: TopicReader,
        metrics: AuditMetrics,
    ) -> None:
        self._settings = settings
        self._log = log
        self._comparison = comparison
        self._rebuilder = rebuilder
        self._topic = topic
        self._metrics = metrics
        self._suspects = Suspects(self._patience)
        self._follower = Follower()
        self._windows: dict[str, Window] = {}
        self._awaited: dict[str, int] = {}
        self._doubtful: list[Copied] = []
        self._looked_until: datetime | None = None
        self._next_opening = 0.0

    async def look(self, *, tables_are_whole: bool) -> datetime:
        """One look. While the tables are being filled they are not compared, but later. Entries up to the time that is
        answered have been looked for."""
        now = await self._log.read_clock()
        until = now - timedelta(seconds=self._settings.audit_settle_seconds)
        since = self._looked_until or until
        touched = await self._log.read_touched(since=since, until=until) if since < until else {}
        before = self._comparison.entries
        faults = await self._look_at_kafka(touched, since)
        for name, (first_seq, last_seq) in touched.items():
            known = self._windows.get(name)
            self._windows[name] = Window(min(first_seq, known.first_seq) if known else first_seq, last_seq)
        if tables_are_whole:
            faults += await self._look_at_tables(list(touched))
        else:
            faults += [fault for fault in self._suspects.faults() if fault.place is Place.REDIS]
            self._suspects.excuse(faults)
        self._looked_until = until
        await self._conclude(faults)
        self._metrics.entries_total.inc(self._comparison.entries - before)
        self._metrics.suspects.set(len(self._suspects))
        self._metrics.looks_total.inc()
        self._metrics.last_look.set_to_current_time()
        return until

    async def _look_at_tables(self, touched: Sequence[str]) -> list[Fault]:
        """What is wrong with as many tables as one look takes: first those under suspicion. What has to wait stays
        under suspicion."""
        suspects = [fault for fault in self._suspects.faults() if fault.place is not Place.KAFKA]
        suspected = dict.fromkeys(fault.conversation_id for fault in suspects)
        whole = [name for name in suspected if name not in self._windows][:WHOLE_SUSPECTS]
        whole += random.sample(touched, min(WHOLE_CONVERSATIONS, len(touched)))
        found = dict.fromkeys(await self._comparison.compare_whole(dict.fromkeys(whole)) if whole else ())
        looked_at = set(whole)
        left = self._settings.audit_look_entries
        first = [name for name in suspected if name in self._windows]
        last_seqs = {name: self._windows[name].settled_seq for name in dict.fromkeys([*first, *self._windows])}
        for group in split(last_seqs, entries=min(left, GROUP_ENTRIES), conversations=GROUP_CONVERSATIONS):
            if left <= 0:
                break
            windows = {name: self._windows[name] for name in group}
            faults = await self._comparison.compare_windows(windows)
            found.update(dict.fromkeys(faults))
            looked_at.update(group)
            wrong = {fault.conversation_id for fault in faults}
            for name, window in windows.items():
                left -= max(0, window.settled_seq - window.first_seq) + 1
                if name not in wrong:
                    del self._windows[name]
        found.update(dict.fromkeys(fault for fault in suspects if fault.conversation_id not in looked_at))
        return list(found)

    async def _look_at_kafka(self, touched: dict[str, Touched], since: datetime) -> list[Fault]:
        faults: list[Fault] = []
        is_followed = await self._follow_records(since, faults)
        self._metrics.kafka_is_followed.set(is_followed)
        for name, (_, last_seq) in touched.items():
            self._awaited[name] = last_seq
        for name in list(self._awaited)[: max(0, len(self._awaited) - MOST_AWAITED)]:
            del self._awaited[name]
        lacking: list[Fault] = []
        for name, last_seq in list(self._awaited.items()):
            position = self._follower.find(name)
            if position is not None and position.last_seq >= last_seq:
                del self._awaited[name]
            else:
                detail = f"the log is at {last_seq}, Kafka carried {position.last_seq if position else 'nothing'}"
                lacking.append(Fault(Place.KAFKA, Kind.MISSING, name, last_seq, detail))
        if not is_followed:
            self._suspects.excuse(lacking)
        return faults + lacking + self._follower.holes()

    async def _follow_records(self, since: datetime, faults: list[Fault]) -> bool:
        """Takes what Kafka has, and finds what is wrong with it; whether Kafka could be read."""
        try:
            if not self._topic.is_open:
                if time.monotonic() < self._next_opening:
                    return False
                self._next_opening = time.monotonic() + KAFKA_RETRY_SECONDS
                await self._topic.open(since=since - KAFKA_MARGIN)
            for _ in range(MOST_TAKES):
                records, count = await self._topic.take()
                faults += await self._judge(records)
                if count < TAKE_RECORDS:
                    break
        except (KafkaError, OSError) as error:
            logger.warning("Kafka cannot be read: %s: %s", type(error).__name__, error)
            await self._topic.close()
            return False
        if self._doubtful:
            faults += await self._judge([])
        return True

    async def _judge(self, records: list[Copied]) -> list[Fault]:
        """What is wrong with these records, and with those that were in doubt."""
        faults: list[Fault] = []
        for record in records:
            kind = self._follower.follow(record.conversation_id, record.entry.seq)
            if kind is Kind.REORDER:
                self._tell(out_of_order(record))
            elif kind is Kind.DUPLICATE:
                self._metrics.redelivered_total.inc()
        judged, self._doubtful = [*self._doubtful, *records], []
        if judged:
            try:
                faults = await self._comparison.compare_records(judged)
            except BaseException:
                self._doubtful = judged
                raise
        places = {(fault.conversation_id, fault.seq) for fault in faults}
        self._doubtful = [one for one in judged if (one.conversation_id, one.entry.seq) in places]
        return faults

    async def _conclude(self, faults: Sequence[Fault]) -> None:
        """Tells what has lasted, and has tables rebuilt."""
        wrong: dict[str, None] = {}
        for fault in self._suspects.see(faults):
            self._tell(fault)
            if fault.place is Place.REDIS:
                wrong[fault.conversation_id] = None
            elif fault.place is Place.KAFKA:
                self._follower.close(fault.conversation_id)
                self._awaited.pop(fault.conversation_id, None)
                self._doubtful = [one for one in self._doubtful if one.conversation_id != fault.conversation_id]
        if wrong:
            try:
                await self._repair(list(wrong))
            finally:
                # What is still found is news: it is repaired again.
                self._suspects.clear(wrong)

    async def _repair(self, names: Sequence[str]) -> None:
        self._rebuilder.forget_users()
        for at in range(0, len(names), REPAIRED_AT_ONCE):
            done = await self._rebuilder.rebuild(names[at : at + REPAIRED_AT_ONCE], force=True)
            await self._rebuilder.drop(done.unknown)
            self._metrics.repairs_total.inc(done.rebuilt + len(done.unknown))
            logger.warning("rebuilt %d conversations for their faults; %d moved on", done.rebuilt, len(done.moved))

    def _tell(self, fault: Fault) -> None:
        self._metrics.faults_total.labels(fault.place, fault.kind).inc()
        logger.error(
            "fault: %s %s, conversation %s seq %d: %s",
            fault.place,
            fault.kind,
            fault.conversation_id,
            fault.seq,
            fault.detail,
        )

    def _patience(self, fault: Fault) -> float:
        if fault.kind is Kind.PHANTOM:
            return self._settings.audit_phantom_seconds
        if fault.kind is Kind.MISSING:
            is_kafka = fault.place is Place.KAFKA
            return self._settings.audit_kafka_late_seconds if is_kafka else self._settings.audit_late_seconds
        return self._settings.audit_confirm_seconds

    async def close(self) -> None:
        """Closes what it reads from Kafka."""
        with contextlib.suppress(KafkaError):
            await self._topic.close()
