"""A session between a hub that never waits and a client: what is told, in which order, and when it ends."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any, cast

from prometheus_client import CollectorRegistry

from schemas.tokens import Principal
from schemas.traces import begin_trace
from stream_apps.delivery.live.client import ClientLimits, End, LiveClient
from stream_apps.delivery.live.encoding import LiveEvent, Subscription
from stream_apps.delivery.live.session import Beginning, Session, SessionParts
from stream_apps.delivery.sse import SSE
from stream_apps.delivery.telemetry import StreamMetrics
from stream_apps.log_reader import LogEntry, LogUnavailable, Membership
from tests.fakes import RecordedSpans

ID = str(uuid.uuid4())
USER = str(uuid.uuid4())
QUEUE_EVENTS = 40
LIMITS = ClientLimits(queue_events=QUEUE_EVENTS, queue_bytes=1_000_000, heartbeat_seconds=15)


@dataclass
class Log:
    """One conversation's log, as Reads would read it."""

    seqs: list[int] = field(default_factory=list)
    is_up: bool = True
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    membership: Membership = Membership(1, None, 0)  # noqa: RUF009 - it is frozen

    async def read_after(self, conversation_id: str, *, after_seq: int, limit: int, head_seq: int) -> list[LogEntry]:
        found = [LogEntry(seq, "", "MessageSent", b"%d" % seq) for seq in self.seqs if seq > after_seq][:limit]
        self.reading.set()
        await self.may_answer.wait()
        if not self.is_up:
            raise LogUnavailable
        return found

    async def read_memberships(self, user_id: str, conversation_ids: list[str]) -> dict[str, Membership]:
        return dict.fromkeys(conversation_ids, self.membership)


class StillHub:
    """Nothing happens on its channels but what a test tells the session itself."""

    def __init__(self) -> None:
        self.watched: list[str] = []

    async def watch_conversations(self, watcher: object, conversation_ids: list[str]) -> None:
        self.watched += conversation_ids

    def unwatch_conversation(self, watcher: object, conversation_id: str) -> None:
        self.watched = [each for each in self.watched if each != conversation_id]

    def is_watching(self, watcher: object, conversation_id: str) -> bool:
        return conversation_id in self.watched


@dataclass
class Told:
    """A session, and the client that it tells."""

    session: Session
    client: LiveClient

    def happen(self, *seqs: int) -> None:
        for seq in seqs:
            self.session.on_event(ID, LiveEvent("MessageSent", b"%d" % seq, seq))

    def receipt(self) -> None:
        self.session.on_ephemeral(ID, LiveEvent("ReceiptAdvanced", b"{}", 0))

    async def take(self, count: int) -> list[str]:
        """The data of the stream's events after `ready`: the seqs of messages."""
        told: list[str] = []
        async with asyncio.timeout(5):
            while len(told) < count:
                chunk = await self.client.next_chunk()
                assert chunk is not None
                lines = chunk.decode().split("\n")
                told += [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
                told = [data for data in told if "resumed" not in data]
        return told


async def begin(
    log: Log,
    *,
    at: int,
    head: int | None = None,
    early: tuple[int, ...] = (),
    limits: ClientLimits = LIMITS,
    recorder: RecordedSpans | None = None,
) -> Told:
    metrics = StreamMetrics(CollectorRegistry())
    parts = SessionParts(
        hub=cast(Any, StillHub()),
        reads=cast(Any, log),
        bases=cast(Any, None),
        metrics=metrics,
        cursor_secret="secret",
        proof_seconds=0,
        recorder=recorder,
    )
    principal = Principal(USER, "c", frozenset(), expires_at=time.time() + 60)
    client = LiveClient(principal, SSE, limits, metrics)
    told = Told(Session(client, Subscription(ID), parts), client)
    told.happen(*early)
    membership = Membership(1, None, at if head is None else head)
    told.session.begin(Beginning({ID: at}, {ID: membership}))
    await told.session.store_base()
    return told


def answering(*seqs: int) -> Log:
    log = Log(list(seqs))
    log.may_answer.set()
    return log


async def test_live_events_are_told_in_one_chunk_when_they_come_together() -> None:
    told = await begin(answering(), at=3)
    await told.client.next_chunk()
    told.happen(4, 5, 5, 6)
    chunk = await told.client.next_chunk()
    assert chunk is not None
    assert chunk.count(b"event: MessageSent") == 3


async def test_an_event_that_comes_while_the_positions_are_read_is_not_lost() -> None:
    told = await begin(answering(4), at=3, early=(4,))
    assert await told.take(1) == ["4"]


async def test_what_is_missing_is_read_before_anything_later_is_told() -> None:
    told = await begin(answering(4, 5, 6, 7), at=3)
    told.happen(6, 7)
    assert await told.take(4) == ["4", "5", "6", "7"]
    told.happen(7, 8)
    assert await told.take(1) == ["8"]


async def test_events_that_come_during_a_read_are_neither_lost_nor_told_twice() -> None:
    log = Log([4, 5])
    told = await begin(log, at=3, head=5)
    await log.reading.wait()
    log.seqs += [6, 7]
    told.happen(6, 7)
    log.may_answer.set()
    assert await told.take(4) == ["4", "5", "6", "7"]


async def test_a_long_backlog_is_told_without_overflow() -> None:
    told = await begin(answering(*range(1, 301)), at=0, head=300)
    assert await told.take(300) == [str(seq) for seq in range(1, 301)]
    assert not told.client.ended.done()


async def test_a_hole_that_cannot_be_read_is_told_as_a_gap_and_the_stream_goes_on() -> None:
    log = answering()
    log.is_up = False
    told = await begin(log, at=3)
    told.happen(6)
    gap, *_ = await told.take(1)
    assert '"after_seq": 3' in gap
    told.happen(7)
    assert await told.take(1) == ["7"]


async def test_a_hole_that_the_log_does_not_fill_is_a_gap() -> None:
    told = await begin(answering(), at=3)
    told.happen(6)
    (gap,) = await told.take(1)
    assert '"reason": "missing"' in gap


async def test_a_client_that_does_not_take_its_events_is_cut_off() -> None:
    told = await begin(answering(), at=0)
    told.happen(*range(1, QUEUE_EVENTS + 1))
    assert told.client.ended.result() is End.SLOW_CLIENT
    assert b"slow_client" in (await told.client.next_chunk() or b"")
    assert await told.client.next_chunk() is None


async def test_a_session_ends_with_its_token_after_what_was_told() -> None:
    told = await begin(answering(), at=0)
    told.happen(1)
    told.client.tick(now=time.time() + 59)
    assert not told.client.ended.done()
    told.client.tick(now=time.time() + 61)
    assert told.client.ended.result() is End.TOKEN_EXPIRED
    chunk = await told.client.next_chunk() or b""
    assert chunk.index(b"event: MessageSent") < chunk.index(b"event: goodbye")
    assert await told.client.next_chunk() is None


async def test_what_follows_the_users_own_leaving_is_not_told() -> None:
    log = answering()
    told = await begin(log, at=3)
    log.membership = Membership(1, 5, 9)
    told.happen(4)
    told.session.on_event(ID, LiveEvent("ParticipantLeft", b"5", 5, subject=USER))
    told.happen(6, 7)
    told.receipt()
    assert await told.take(2) == ["4", "5"]
    await asyncio.sleep(0.01)
    assert told.client._queue == []


async def test_a_gap_does_not_lead_past_the_users_leaving() -> None:
    log = answering()
    told = await begin(log, at=3)
    log.membership = Membership(1, 5, 9)
    told.happen(9)
    (gap,) = await told.take(1)
    assert '"after_seq": 3' in gap
    told.happen(10)
    await asyncio.sleep(0.01)
    assert told.client._queue == []


async def test_who_comes_back_is_told_from_the_new_joining_on() -> None:
    log = answering(4, 5, 6, 7, 8, 9)
    told = await begin(log, at=3)
    told.session.on_event(ID, LiveEvent("ParticipantLeft", b"4", 4, subject=USER))
    log.membership = Membership(8, None, 9)
    told.session.on_joined(ID, 8)
    assert await told.take(3) == ["4", "8", "9"]


async def test_a_receipt_moves_no_cursor_and_waits_for_nobody() -> None:
    told = await begin(answering(4, 5), at=3)
    await told.client.next_chunk()
    told.receipt()
    assert await told.client.next_chunk() == b"event: ReceiptAdvanced\ndata: {}\n\n"
    told.happen(5)
    told.receipt()
    assert await told.take(2) == ["4", "5"], "while something is missing a receipt is left out"


async def test_of_what_is_read_for_a_client_that_was_there_the_sampled_events_are_told_as_sent() -> None:
    recorded = RecordedSpans()

    class TracedLog(Log):
        async def read_after(
            self, conversation_id: str, *, after_seq: int, limit: int, head_seq: int
        ) -> list[LogEntry]:
            found = await super().read_after(conversation_id, after_seq=after_seq, limit=limit, head_seq=head_seq)
            return [self.traced(entry) for entry in found]

        def traced(self, entry: LogEntry) -> LogEntry:
            year = "2001" if entry.seq == 4 else "2999"  # before the session began, and since
            payload = f'{{"seq":{entry.seq},"created_at":"{year}-01-02T03:04:05.678901Z"}}'.encode()
            traceparent = begin_trace(0.0 if entry.seq == 6 else 1.0).traceparent
            return replace(entry, payload=payload, traceparent=traceparent)

    log = TracedLog([4, 5, 6])
    log.may_answer.set()
    told = await begin(log, at=3, head=6, recorder=recorded)
    while told.session._progress.told_seq(ID) < 6:
        await asyncio.sleep(0)
    await told.client.next_chunk()
    told.client.note_sent()
    assert [(span.name, span.attributes["chat4all.seq"]) for span in recorded.spans] == [("fan out", 5), ("send", 5)]
