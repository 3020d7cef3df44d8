"""The canary at work: logs in, writes to each partition in turn, and takes what comes back."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress

from chat4all_client import Chat, ChatError, Event, Gap, LoggedOut, NotAccepted, Refused
from infra.telemetry.instruments import make_registry
from schemas.topics import CONVERSATION_EVENTS
from stream_apps.canary.model import Ledger, choose_conversations, hop_seconds
from stream_apps.canary.settings import CanarySettings
from stream_apps.canary.telemetry import CanaryMetrics
from stream_apps.health_server import Health, HealthServer

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
LOOK_SECONDS = 1.0
PARTITIONS = CONVERSATION_EVENTS.partitions


class WrongPassword(Exception):
    """The canary's user exists, and its password is another one: somebody else has taken the name, or the secret was
    made anew. Set CHAT4ALL_CANARY_USERNAME to a name that is free, or the password that belongs to it."""


class Canary:
    """The program."""

    def __init__(self, settings: CanarySettings) -> None:
        self._settings = settings
        registry = make_registry()
        self._metrics = CanaryMetrics(registry)
        self._ledger = Ledger(settings.canary_lost_seconds)
        self._last_delivered = [time.time()] * PARTITIONS
        self._metrics.waiting.set_function(lambda: self._ledger.waiting)
        self._server = HealthServer(settings.metrics_port, registry, self._ask, host=settings.metrics_host)
        self._cursor: str | None = None
        self._obstacle: str | None = "it has not logged in yet"

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, whatever is away meanwhile."""
        await self._server.open()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                working = asyncio.create_task(self._work())
                await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                working.cancel()
                await self._note_end(working)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
        finally:
            stopping.cancel()
            await self._server.close()

    async def _note_end(self, working: asyncio.Task[None]) -> None:
        """Why it cannot go on, once for each reason."""
        try:
            await working
        except asyncio.CancelledError:
            return
        except (ChatError, WrongPassword) as error:
            self._note_obstacle(error)
        except ExceptionGroup as group:
            known, unknown = group.split((ChatError, WrongPassword))
            if unknown is not None:
                raise
            if known is not None:
                self._note_obstacle(known.exceptions[0])

    def _note_obstacle(self, error: Exception) -> None:
        obstacle = f"{type(error).__name__}: {error}"
        if obstacle != self._obstacle:
            logger.warning("the canary waits: %s", obstacle)
        self._obstacle = obstacle

    async def _work(self) -> None:
        settings = self._settings
        within = settings.canary_lost_seconds
        async with Chat(settings.canary_writes_url, settings.canary_reads_url, within_seconds=within) as chat:
            await self._log_in(chat)
            conversation_ids = choose_conversations(chat.user_id, PARTITIONS)
            for partition, conversation_id in enumerate(conversation_ids):
                await chat.create_conversation(
                    title=f"canary of partition {partition}", conversation_id=conversation_id
                )
            async with chat.live(cursor=self._cursor) as live, asyncio.TaskGroup() as tasks:
                logger.info("the canary sings in %d conversations", len(conversation_ids))
                self._obstacle = None
                tasks.create_task(self._give_up())
                tasks.create_task(self._send(chat, conversation_ids, tasks))
                async for event in live:
                    self._take(chat, event, tasks)
                    self._cursor = live.cursor

    async def _log_in(self, chat: Chat) -> None:
        name, password = self._settings.canary_username, self._settings.canary_password.get_secret_value()
        try:
            await chat.login(name, password)
        except Refused as error:
            if error.status not in (400, 401):
                raise
            try:
                await chat.register(name, password, display_name="Canary")
            except Refused as taken:
                raise WrongPassword(WrongPassword.__doc__) from taken

    async def _send(self, chat: Chat, conversation_ids: Sequence[str], tasks: asyncio.TaskGroup) -> None:
        """Each partition in turn, spread over the interval, not in step with anything."""
        pause = self._settings.canary_interval_seconds / len(conversation_ids)
        while True:
            for partition, conversation_id in enumerate(conversation_ids):
                tasks.create_task(self._send_one(chat, conversation_id, partition))
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter

    async def _send_one(self, chat: Chat, conversation_id: str, partition: int) -> None:
        message_id, label = str(uuid.uuid4()), str(partition)
        self._ledger.send(message_id, partition, now=time.monotonic())
        try:
            await chat.send(conversation_id, "tweet", message_id=message_id)
        except LoggedOut:
            raise
        except (NotAccepted, Refused):
            self._ledger.refuse(message_id)
            self._metrics.unaccepted_total.labels(label).inc()
        else:
            self._ledger.accept(message_id)
            self._metrics.messages_total.labels(label).inc()

    def _take(self, chat: Chat, event: Event | Gap, tasks: asyncio.TaskGroup) -> None:
        if not isinstance(event, Event) or event.type != "MessageSent":
            return
        message_id = str(event.data["message_id"])
        arrival = self._ledger.arrive(message_id, now=time.monotonic())
        if arrival is None:
            return
        self._last_delivered[arrival.partition] = time.time()
        self._metrics.last_delivered.labels(str(arrival.partition)).set_to_current_time()
        self._metrics.delivery_seconds.observe(arrival.seconds)
        self._metrics.late_total.inc(arrival.is_late)
        tasks.create_task(self._measure_hops(chat, event.conversation_id, message_id))

    async def _measure_hops(self, chat: Chat, conversation_id: str, message_id: str) -> None:
        try:
            hops = await chat.hops(conversation_id, message_id)
        except LoggedOut:
            raise
        except ChatError:
            return  # delivery is away; what it would have told is not worth waiting for
        for hop, seconds in hop_seconds(hops).items():
            self._metrics.hop_seconds.labels(hop).observe(seconds)

    async def _give_up(self) -> None:
        while True:
            for partition in self._ledger.give_up(now=time.monotonic()):
                self._metrics.lost_total.labels(str(partition)).inc()
                logger.error("a message of partition %d has not come back", partition)
            await asyncio.sleep(LOOK_SECONDS)

    async def _ask(self) -> Health:
        """Healthy whatever it finds: a restart of the canary helps nobody. `dark_partitions` says where nothing has
        come back for three intervals."""
        limit = time.time() - 3 * self._settings.canary_interval_seconds
        dark = [partition for partition, at in enumerate(self._last_delivered) if at < limit]
        facts = {"dark_partitions": dark, "waiting_messages": self._ledger.waiting}
        if self._obstacle is not None:
            return Health(True, "waiting", {**facts, "detail": self._obstacle})
        return Health(True, "dark" if dark else "running", facts)
