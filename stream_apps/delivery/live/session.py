"""A session: one client's live stream. A bounded queue between the hub, which never waits, and the client."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from schemas.tokens import Principal
from stream_apps.delivery.live.bases import Bases, new_base
from stream_apps.delivery.live.cursors import NO_BASE, Base, CursorWriter, Scope
from stream_apps.delivery.live.hub import Hub, find_leaver
from stream_apps.delivery.live.progress import Progress
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.sse import COMMENT, PREAMBLE, encode_event, encode_gap, encode_ready, finish
from stream_apps.delivery.tables import TablesUnavailable
from stream_apps.delivery.telemetry import StreamMetrics
from stream_apps.log_reader import LogUnavailable, Membership

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
    queue_events: int
    comment_seconds: float
    proof_seconds: float


class Session:
    """The hub calls `on_…`, a timer `tick`; the HTTP side takes `next_chunk` until it is None.

    What needs I/O (filling holes, joining, storing cursors) is done by one task, the keeper, which exists only while
    there is something to do.
    """

    def __init__(self, principal: Principal, parts: SessionParts, *, conversation_id: str | None = None) -> None:
        self._principal = principal
        self._scope = Scope.EVERY_CONVERSATION if conversation_id is None else Scope.ONE_CONVERSATION
        self._only = conversation_id
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._progress = Progress(CursorWriter(self._scope, {}))
        self._early: dict[str, int] = {}
        self._page_entries = min(MAX_PAGE_ENTRIES, parts.queue_events // 4)
        self._is_begun = False
        self._queue: list[bytes] = []
        self._wanted: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._last_sent_at = self._loop.time()
        self._keeper: asyncio.Task[None] | None = None
        self._must_check = False
        self._unsettled: set[str] = set()
        self._unstored: Base | None = None
        self._superseded = NO_BASE
        self._failing_since: float | None = None
        self.ended: asyncio.Future[str] = self._loop.create_future()

    def begin(
        self,
        positions: dict[str, int],
        memberships: dict[str, Membership],
        *,
        base: Base | None,
        is_resumed: bool,
        is_lost: bool,
    ) -> None:
        """Follows conversations from positions. `is_lost` says that the client gave a cursor which says nothing any
        more. A base that is not stored yet is what `store_base` stores."""
        cursors = CursorWriter(self._scope, positions, base=base)
        self._progress = Progress(cursors)
        for conversation_id, membership in memberships.items():
            self._progress.begin(conversation_id, joined_seq=membership.joined_seq)
            if membership.left_seq is not None:
                self._progress.end(conversation_id, membership.left_seq)
            seq = max(membership.end_seq, self._early.get(conversation_id, 0))
            self._progress.learn(conversation_id, seq)
        self._early.clear()
        self._is_begun = True
        self._queue.append(PREAMBLE)
        if is_lost:
            self._parts.metrics.gaps_total.labels("unknown_cursor").inc()
            self._push(finish(encode_gap(None, None, "unknown_cursor"), cursors.current()))
        if base is not None and not is_resumed:
            self._unstored = base
        self._push(finish(encode_ready(is_resumed=is_resumed), cursors.current()))

    async def store_base(self) -> None:
        """Stores the base to which the first cursors refer. If Redis is away it is stored later; a client that comes
        back before that is told of a gap."""
        try:
            await self._store_unstored()
        except TablesUnavailable:
            logger.warning("The cursors of a stream cannot be stored now; it can be resumed later only")
        self._call_keeper()

    # What the hub tells.

    def on_event(self, conversation_id: str, seq: int, event: bytes, leaver: str | None) -> None:
        """See Watcher."""
        if not self._is_begun:
            # The positions are being read: this event may be younger than they.
            self._early[conversation_id] = seq
            return
        cursor = self._progress.take_live(conversation_id, seq)
        if cursor is not None:
            self._push(finish(event, cursor))
            if leaver == self._principal.user_id:
                self._end_conversation(conversation_id, seq)
        if self._progress.behind or self._progress.cursors.needs_base:
            self._call_keeper()

    def on_ephemeral(self, conversation_id: str, event: bytes) -> None:
        """See Watcher. It is left out while the client is behind, or slow: nothing depends on it."""
        is_welcome = self._is_begun and len(self._queue) < self._parts.queue_events // 2
        if is_welcome and self._progress.is_live(conversation_id):
            self._push(event)

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

    def on_restored(self) -> None:
        """See Watcher."""
        self._must_check = True
        self._call_keeper()

    # What the HTTP side takes.

    async def next_chunk(self) -> bytes | None:
        """Everything that waits for the client, as soon as there is something; None when the stream is over."""
        while not self._queue:
            if self.ended.done():
                return None
            self._wanted = self._loop.create_future()
            await self._wanted
        self._parts.metrics.sent_total.inc(len(self._queue))
        chunk = b"".join(self._queue)
        self._queue.clear()
        self._last_sent_at = self._loop.time()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return chunk

    def tick(self, *, now: float) -> None:
        """Time has passed. `now` is in seconds since the epoch."""
        if self._principal.expires_at <= now:
            self.end("token_expired")
        elif not self._queue and self._loop.time() - self._last_sent_at >= self._parts.comment_seconds:
            self._push(COMMENT)

    def end(self, reason: str) -> None:
        """Ends the stream after what waits for the client. What it has not seen it gets when it resumes."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._parts.metrics.ended_total.labels(reason).inc()
        if self._keeper is not None:
            self._keeper.cancel()
        self._wake()

    def _is_of_this_stream(self, conversation_id: str) -> bool:
        return self._scope is Scope.EVERY_CONVERSATION or conversation_id == self._only

    def _end_conversation(self, conversation_id: str, seq: int) -> None:
        """The client has been told that the user left. It may have come back by now: the keeper looks."""
        self._progress.end(conversation_id, seq)
        self._unsettled.add(conversation_id)
        self._call_keeper()

    def _push(self, data: bytes) -> None:
        if self.ended.done():
            return
        if len(self._queue) >= self._parts.queue_events:
            self._queue.clear()
            self.end("slow_client")
            return
        self._queue.append(data)
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    # What the keeper does.

    def _call_keeper(self) -> None:
        is_free = self._keeper is None or self._keeper.done()
        if is_free and self._is_begun and not self.ended.done():
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
            self.end("error")

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
        reads, progress, user_id = self._parts.reads, self._progress, self._principal.user_id
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
        memberships = await self._parts.reads.read_memberships(self._principal.user_id, [conversation_id])
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
                    limit=self._page_entries,
                    head_seq=after_seq if target is None else target,
                )
            except LogUnavailable:
                if self._is_patient() or target is None:
                    raise
                await self._tell_gap(conversation_id, "unavailable")
                return
            for entry in entries:
                cursor = progress.take_read(conversation_id, entry.seq)
                if cursor is not None:
                    self._parts.metrics.caught_up_total.inc()
                    self._push(finish(encode_event(entry.event_type, entry.payload), cursor))
                    if find_leaver(entry.event_type, entry.payload) == self._principal.user_id:
                        self._end_conversation(conversation_id, entry.seq)
            if target is not None and progress.told_seq(conversation_id) == after_seq:
                await self._tell_gap(conversation_id, "missing")
            if progress.is_over(conversation_id):
                self._unsettled.add(conversation_id)
                return
            if len(entries) < self._page_entries and conversation_id not in progress.behind:
                return
            await self._wait_for_room()

    def _is_patient(self) -> bool:
        return self._failing_since is None or self._loop.time() - self._failing_since < self._parts.proof_seconds

    async def _tell_gap(self, conversation_id: str, reason: str) -> None:
        """Gives up what the conversation lacks. The user may have left in there, and must not see what came after."""
        progress = self._progress
        memberships = await self._parts.reads.read_memberships(self._principal.user_id, [conversation_id])
        membership = memberships.get(conversation_id)
        if membership is None or membership.joined_seq > progress.joined_seq(conversation_id):
            progress.stop(conversation_id)
            self._unsettled.add(conversation_id)
        elif membership.left_seq is not None:
            progress.end(conversation_id, membership.left_seq)
            self._unsettled.add(conversation_id)
        after_seq = progress.told_seq(conversation_id)
        cursor = progress.skip(conversation_id) if conversation_id in progress.behind else progress.cursors.current()
        self._parts.metrics.gaps_total.labels(reason).inc()
        self._push(finish(encode_gap(conversation_id, after_seq, reason), cursor))

    async def _wait_for_room(self) -> None:
        while len(self._queue) > self._parts.queue_events // 2:
            self._room = self._loop.create_future()
            await self._room

    async def _store_unstored(self) -> None:
        if self._unstored is not None:
            await self._parts.bases.store(self._principal.user_id, self._unstored)
            self._unstored = None

    async def _renew_base(self) -> None:
        """Lets cursors refer to a base of now. The one before the last is let go: the client may still hold an id
        that refers to the last."""
        cursors = self._progress.cursors
        base = new_base(cursors.propose_base())
        await self._parts.bases.store(self._principal.user_id, base, superseded=self._superseded)
        self._superseded = NO_BASE if cursors.base is None else cursors.base.base_id
        cursors.adopt_base(base)
