"""A session: what one live client follows. It decides what the client is told, and looks for what is missing."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from infra.telemetry.spans import Recorder
from schemas.passages import find_created_us
from stream_apps.delivery.live.bases import Bases, new_base
from stream_apps.delivery.live.client import End, LiveClient
from stream_apps.delivery.live.cursors import NO_BASE, Base, CursorWriter, Scope, Sealer
from stream_apps.delivery.live.encoding import LiveEvent, Subscription
from stream_apps.delivery.live.hub import Hub, find_leaver
from stream_apps.delivery.live.progress import Progress
from stream_apps.delivery.live.sending import Sending, begin_sending
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.tables import TablesUnavailable
from stream_apps.delivery.telemetry import StreamMetrics
from stream_apps.log_reader import LogEntry, LogUnavailable, Membership

logger = logging.getLogger(__name__)

MAX_PAGE_ENTRIES = 100
FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What every session shares."""

    hub: Hub
    reads: Reads
    bases: Bases
    metrics: StreamMetrics
    cursor_secret: str
    proof_seconds: float
    recorder: Recorder | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a session begins: conversation -> the seq up to which the client was told, and the user's stays in them.
    `is_lost` says that the client gave a cursor which says nothing any more. A base that is not stored yet is what
    `store_base` stores."""

    positions: dict[str, int]
    memberships: dict[str, Membership]
    base: Base | None = None
    is_resumed: bool = False
    is_lost: bool = False


class Session:
    """The hub calls `on_…`, a timer `tick`; what is to be told is pushed to the client.

    What needs I/O (filling holes, joining, storing cursors) is done by one task, the keeper, which exists only while
    there is something to do. `has_cursors` says whether the client is told cursors; one that follows one conversation
    over a WebSocket is not: the events' seq is enough.
    """

    def __init__(
        self, client: LiveClient, subscription: Subscription, parts: SessionParts, *, has_cursors: bool = True
    ) -> None:
        only = subscription.conversation_id
        self._client = client
        self._subscription = subscription
        self._scope = Scope.EVERY_CONVERSATION if only is None else Scope.ONE_CONVERSATION
        self._parts = parts
        self._has_cursors = has_cursors
        self._sealer = Sealer(parts.cursor_secret, client.user_id)
        self._loop = asyncio.get_running_loop()
        self._progress = Progress(CursorWriter(self._scope, {}, sealer=self._sealer))
        self._early: dict[str, int] = {}
        self._is_begun = False
        self._is_closed = False
        self._keeper: asyncio.Task[None] | None = None
        self._must_check = False
        self._unsettled: set[str] = set()
        self._unstored: Base | None = None
        self._superseded = NO_BASE
        self._stored_at = self._loop.time()
        self._failing_since: float | None = None
        self._since_us = time.time_ns() // 1000

    @property
    def sealer(self) -> Sealer:
        """What the client's cursors are sealed with."""
        return self._sealer

    @property
    def subscription(self) -> Subscription:
        """What the client asked for."""
        return self._subscription

    def begin(self, beginning: Beginning) -> None:
        """Follows conversations from positions."""
        base = beginning.base
        cursors = CursorWriter(self._scope, beginning.positions, sealer=self._sealer, base=base)
        self._progress = Progress(cursors)
        for conversation_id, membership in beginning.memberships.items():
            self._progress.begin(conversation_id, joined_seq=membership.joined_seq)
            if membership.left_seq is not None:
                self._progress.end(conversation_id, membership.left_seq)
            seq = max(membership.end_seq, self._early.get(conversation_id, 0))
            self._progress.learn(conversation_id, seq)
        self._early.clear()
        self._is_begun = True
        if beginning.is_lost:
            self._parts.metrics.gaps_total.labels("unknown_cursor").inc()
            self._push(self._client.encoding.gap(None, None, None, "unknown_cursor"))
        if base is not None and not beginning.is_resumed:
            self._unstored = base
        after_seq = None if self._has_cursors else next(iter(beginning.positions.values()))
        ready = self._client.encoding.ready(self._subscription, after_seq=after_seq, is_resumed=beginning.is_resumed)
        self._push(ready)

    async def store_base(self) -> None:
        """Stores the base to which the first cursors refer. If Redis is away it is stored later; a client that comes
        back before that is told of a gap."""
        try:
            await self._store_unstored()
        except TablesUnavailable:
            logger.warning("The cursors of a stream cannot be stored now; it can be resumed later only")
        self._call_keeper()

    def tick(self) -> None:
        """Time has passed: the positions behind the cursors are kept for as long as the stream lasts."""
        if self._loop.time() - self._stored_at > self._parts.bases.lifetime_seconds / 2:
            self._stored_at = self._loop.time()
            self._unstored = self._progress.cursors.base
            self._call_keeper()

    def close(self) -> None:
        """Nothing more is told."""
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()

    # What the hub tells.

    def on_event(self, conversation_id: str, event: LiveEvent) -> None:
        """See Watcher."""
        if not self._is_begun:
            # The positions are being read: this event may be younger than they.
            self._early[conversation_id] = event.seq
            return
        if self._progress.take_live(conversation_id, event.seq):
            self._push(event.encoded(self._client.encoding), event.sending)
            if event.subject == self._client.user_id:
                self._end_conversation(conversation_id, event.seq)
        if self._progress.behind or self._progress.cursors.needs_base:
            self._call_keeper()

    def on_ephemeral(self, conversation_id: str, event: LiveEvent) -> None:
        """See Watcher. It is left out while the client is behind, or slow: nothing depends on it. What the user does
        itself (the subject of a receipt is none) it need not be told."""
        if event.subject == self._client.user_id:
            return
        is_welcome = self._is_begun and not self._is_closed and not self._client.is_slow
        if is_welcome and self._progress.is_live(conversation_id):
            self._client.push(event.encoded(self._client.encoding))

    def on_joined(self, conversation_id: str, seq: int) -> None:
        """See Watcher."""
        if self._is_of_this_stream(conversation_id) and seq > self._progress.joined_seq(conversation_id):
            self._unsettled.add(conversation_id)
            self._call_keeper()

    def on_left(self, conversation_id: str, seq: int) -> None:
        """See Watcher."""
        if self._is_begun and self._progress.is_following(conversation_id):
            self._progress.end(conversation_id, seq)
            self._progress.learn(conversation_id, seq)
        self.on_joined(conversation_id, seq)

    def on_progress(self, conversation_id: str, seq: int) -> None:
        """See Watcher."""
        if self._is_begun and self._progress.is_following(conversation_id):
            self._progress.learn(conversation_id, seq)
            if self._progress.behind:
                self._call_keeper()

    def on_restored(self) -> None:
        """See Watcher."""
        self._must_check = True
        self._call_keeper()

    def _is_of_this_stream(self, conversation_id: str) -> bool:
        return self._scope is Scope.EVERY_CONVERSATION or conversation_id == self._subscription.conversation_id

    def _end_conversation(self, conversation_id: str, seq: int) -> None:
        """The client has been told that the user left. It may have come back by now: the keeper looks."""
        self._progress.end(conversation_id, seq)
        self._unsettled.add(conversation_id)
        self._call_keeper()

    def _push(self, encoded: bytes, sending: Sending | None = None) -> None:
        """Tells the client something that was encoded up to its cursor."""
        if not self._is_closed:
            cursor = self._progress.cursors.current() if self._has_cursors else b""
            self._client.push(self._client.encoding.finish(encoded, cursor), sending)

    # What the keeper does.

    def _call_keeper(self) -> None:
        is_free = self._keeper is None or self._keeper.done()
        if is_free and self._is_begun and not self._is_closed and not self._client.ended.done():
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        delay = FIRST_DELAY_SECONDS
        try:
            while True:
                try:
                    if not await self._keep_once():
                        return
                    delay, self._failing_since = FIRST_DELAY_SECONDS, None
                except (LogUnavailable, TablesUnavailable):
                    self._failing_since = self._failing_since or self._loop.time()
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, LONGEST_DELAY_SECONDS)
        except Exception:
            logger.exception("A stream cannot go on; its client resumes")
            self._client.end(End.ERROR)

    async def _keep_once(self) -> bool:
        """Does the most urgent thing. False when there was nothing to do."""
        if self._must_check:
            await self._check_everything()
        elif self._unsettled:
            await self._settle(next(iter(self._unsettled)))
        elif self._progress.behind:
            await self._catch_up(next(iter(self._progress.behind)))
        elif self._unstored is not None:
            await self._store_unstored()
        elif self._progress.cursors.needs_base:
            await self._renew_base()
        else:
            return False
        return True

    async def _check_everything(self) -> None:
        """After Redis was away: who came and went, and how far is everything?"""
        reads, progress, user_id = self._parts.reads, self._progress, self._client.user_id
        self._must_check = False
        try:
            conversation_ids = dict.fromkeys(progress.cursors.positions)
            if self._scope is Scope.EVERY_CONVERSATION:
                conversation_ids |= dict.fromkeys(await reads.read_user_conversations(user_id))
            for conversation_id, membership in (await reads.read_memberships(user_id, list(conversation_ids))).items():
                await self._take_membership(conversation_id, membership)
        except LogUnavailable:
            self._must_check = True
            raise
        # Redis may have lost the base.
        self._unstored = progress.cursors.base

    async def _settle(self, conversation_id: str) -> None:
        """Is the user in this conversation (again, or no more)?"""
        memberships = await self._parts.reads.read_memberships(self._client.user_id, [conversation_id])
        self._unsettled.discard(conversation_id)
        if conversation_id in memberships:
            await self._take_membership(conversation_id, memberships[conversation_id])

    async def _take_membership(self, conversation_id: str, membership: Membership) -> None:
        """Follows the conversation as far as the stay goes."""
        progress, hub = self._progress, self._parts.hub
        if membership.joined_seq > progress.joined_seq(conversation_id):
            if progress.is_following(conversation_id):
                # What is left of the stay before comes first; it ends with the event that says so.
                progress.learn(conversation_id, membership.joined_seq)
                return
            await hub.watch_conversations(self, [conversation_id])
            progress.follow(conversation_id, joined_seq=membership.joined_seq)
        if membership.left_seq is not None and membership.joined_seq == progress.joined_seq(conversation_id):
            progress.end(conversation_id, membership.left_seq)
        progress.learn(conversation_id, max(membership.end_seq, membership.joined_seq))
        if progress.is_over(conversation_id):
            hub.unwatch_conversation(self, conversation_id)
        elif not hub.is_watching(self, conversation_id):
            # It was thought to be over. What has happened since the membership was read is asked for once more.
            await hub.watch_conversations(self, [conversation_id])
            self._unsettled.add(conversation_id)

    async def _catch_up(self, conversation_id: str) -> None:
        """Reads what the conversation lacks, a page at a time, until nothing follows."""
        progress = self._progress
        while True:
            after_seq = progress.told_seq(conversation_id)
            target = progress.behind.get(conversation_id)
            try:
                entries = await self._parts.reads.read_after(
                    conversation_id,
                    after_seq=after_seq,
                    limit=MAX_PAGE_ENTRIES,
                    head_seq=after_seq if target is None else target,
                )
            except LogUnavailable:
                if self._is_patient() or target is None:
                    raise
                await self._tell_gap(conversation_id, "unavailable")
                return
            for entry in entries:
                # What comes live meanwhile waits in the log: the conversation is behind.
                await self._client.wait_for_room()
                if progress.take_read(conversation_id, entry.seq):
                    self._parts.metrics.caught_up_total.inc()
                    sending = self._begin_catching_up(entry)
                    self._push(self._client.encoding.event(entry.event_type, entry.payload), sending)
                    now_us = time.time_ns() // 1000
                    self._parts.metrics.observe_caught_up(entry.payload, sent_us=now_us, since_us=self._since_us)
                    if find_leaver(entry.event_type, entry.payload) == self._client.user_id:
                        self._end_conversation(conversation_id, entry.seq)
            if target is not None and progress.told_seq(conversation_id) == after_seq:
                await self._tell_gap(conversation_id, "missing")
            if progress.is_over(conversation_id):
                self._unsettled.add(conversation_id)
                return
            if len(entries) < MAX_PAGE_ENTRIES and conversation_id not in progress.behind:
                return

    def _begin_catching_up(self, entry: LogEntry) -> Sending | None:
        """The sending of an entry that was read, if it is sampled and of this session's time."""
        sending = begin_sending(self._parts.recorder, entry.traceparent, entry.seq)
        if sending is None or (find_created_us(entry.payload) or 0) < self._since_us:
            return None
        sending.note_fan_out(1)
        return sending

    def _is_patient(self) -> bool:
        return self._failing_since is None or self._loop.time() - self._failing_since < self._parts.proof_seconds

    async def _tell_gap(self, conversation_id: str, reason: str) -> None:
        """Gives up what the conversation lacks. The user may have left in there, and must not see what came after."""
        progress = self._progress
        memberships = await self._parts.reads.read_memberships(self._client.user_id, [conversation_id])
        membership = memberships.get(conversation_id)
        if membership is None or membership.joined_seq > progress.joined_seq(conversation_id):
            progress.stop(conversation_id)
            self._unsettled.add(conversation_id)
        elif membership.left_seq is not None:
            progress.end(conversation_id, membership.left_seq)
            self._unsettled.add(conversation_id)
        after_seq = progress.told_seq(conversation_id)
        progress.skip(conversation_id)
        self._parts.metrics.gaps_total.labels(reason).inc()
        next_seq = progress.told_seq(conversation_id)
        self._push(self._client.encoding.gap(conversation_id, after_seq, next_seq, reason))

    async def _store_unstored(self) -> None:
        if self._unstored is not None:
            await self._parts.bases.store(self._client.user_id, self._unstored)
            self._unstored = None
            self._stored_at = self._loop.time()

    async def _renew_base(self) -> None:
        """Lets cursors refer to a base of now. The one before the last is let go: the client may still hold an id
        that refers to the last."""
        cursors = self._progress.cursors
        base = new_base(cursors.propose_base())
        await self._parts.bases.store(self._client.user_id, base, superseded=self._superseded)
        self._superseded = NO_BASE if cursors.base is None else cursors.base.base_id
        cursors.adopt_base(base)
