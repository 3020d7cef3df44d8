"""Pages of messages: following `next` or `prev` shows each message once, and null means the end."""

from __future__ import annotations

import json
import uuid
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.delivery.history import MessagePage, MessageQuery, make_message, read_page
from stream_apps.delivery.reads import Reads
from stream_apps.log_reader import LogEntry, Membership

ID = str(uuid.uuid4())


class LogOfTypes:
    """Reads over a log that is given by its entries' types. Seq 1 is always the creation."""

    def __init__(self, are_messages: list[bool]) -> None:
        self.entries = [self._entry(1, "ConversationCreated")]
        for seq, is_message in enumerate(are_messages, start=2):
            self.entries.append(self._entry(seq, "MessageSent" if is_message else "SomethingElse"))

    @property
    def message_seqs(self) -> list[int]:
        return [entry.seq for entry in self.entries if entry.event_type == "MessageSent"]

    async def read_after(self, conversation_id: str, *, after_seq: int, limit: int, head_seq: int) -> list[LogEntry]:
        return [entry for entry in self.entries if entry.seq > after_seq][:limit]

    async def read_before(self, conversation_id: str, *, before_seq: int, limit: int, head_seq: int) -> list[LogEntry]:
        return [entry for entry in self.entries if entry.seq < before_seq][-limit:]

    async def read_changes(self, conversation_id: str, messages: list[LogEntry], *, up_to_seq: int) -> dict[str, bytes]:
        return {}

    async def page(
        self,
        *,
        after_seq: int | None = None,
        before_seq: int | None = None,
        limit: int = 3,
        membership: Membership | None = None,
    ) -> MessagePage:
        query = MessageQuery(after_seq=after_seq, before_seq=before_seq, limit=limit)
        if membership is None:
            membership = Membership(1, None, len(self.entries))
        return await read_page(cast(Reads, self), ID, query, membership=membership)

    @staticmethod
    def _entry(seq: int, event_type: str) -> LogEntry:
        payload = {
            "message_id": str(uuid.uuid4()),
            "conversation_id": ID,
            "seq": seq,
            "actor_id": ID,
            "created_at": "2030-01-01T00:00:00.000000Z",
            "body": {"type": "text", "text": "x"},
        }
        return LogEntry(seq, str(uuid.uuid4()), event_type, json.dumps(payload).encode())


def seqs(page: MessagePage) -> list[int]:
    return [message.seq for message in page.messages]


logs = st.lists(st.booleans(), max_size=25).map(LogOfTypes)


@given(log=logs, limit=st.integers(1, 7))
async def test_next_leads_through_all_messages(log: LogOfTypes, limit: int) -> None:
    page = await log.page(after_seq=0, limit=limit)
    shown = seqs(page)
    while page.next is not None:
        page = await log.page(after_seq=page.next, limit=limit)
        assert page.messages
        shown += seqs(page)
    assert shown == log.message_seqs


@given(log=logs, limit=st.integers(1, 7))
async def test_prev_leads_through_all_messages(log: LogOfTypes, limit: int) -> None:
    page = await log.page(limit=limit)
    assert page.next is None
    shown = seqs(page)
    while page.prev is not None:
        page = await log.page(before_seq=page.prev, limit=limit)
        assert page.messages
        shown = seqs(page) + shown
    assert shown == log.message_seqs


@given(log=logs, limit=st.integers(1, 7), around=st.integers(0, 30))
async def test_no_message_is_hidden_on_either_side_of_a_page(log: LogOfTypes, limit: int, around: int) -> None:
    for page in (await log.page(after_seq=around, limit=limit), await log.page(before_seq=around, limit=limit)):
        after = [] if page.next is None else seqs(await log.page(after_seq=page.next, limit=200))
        before = [] if page.prev is None else seqs(await log.page(before_seq=page.prev, limit=200))
        assert before + seqs(page) + after == log.message_seqs


async def test_a_range_shows_what_lies_between() -> None:
    log = LogOfTypes([True] * 10)
    page = await log.page(after_seq=3, before_seq=6, limit=50)
    assert (seqs(page), page.next, page.prev) == ([4, 5], 5, 4)


@pytest.mark.parametrize("after_seq", [None, 0, 5])
async def test_an_empty_conversation_has_one_empty_page(after_seq: int | None) -> None:
    page = await LogOfTypes([]).page(after_seq=after_seq)
    assert (page.messages, page.next) == ([], None)


@given(log=logs, limit=st.integers(1, 7), joined=st.integers(1, 30), stay=st.integers(1, 30))
async def test_a_former_participant_pages_through_what_it_saw(
    log: LogOfTypes, limit: int, joined: int, stay: int
) -> None:
    joined = min(joined, len(log.entries))
    left = min(joined + stay, len(log.entries))
    log.entries[joined - 1] = log.entries[joined - 1].__class__(joined, "", "ParticipantJoined", b"")
    membership = Membership(joined, left, len(log.entries))
    visible = [seq for seq in log.message_seqs if joined <= seq <= left]
    page = await log.page(after_seq=0, limit=limit, membership=membership)
    forwards = seqs(page)
    while page.next is not None:
        page = await log.page(after_seq=page.next, limit=limit, membership=membership)
        forwards += seqs(page)
    page = await log.page(limit=limit, membership=membership)
    backwards = seqs(page)
    while page.prev is not None:
        page = await log.page(before_seq=page.prev, limit=limit, membership=membership)
        backwards = seqs(page) + backwards
    assert (forwards, backwards) == (visible, visible)


def test_a_message_is_shown_as_it_is_now() -> None:
    payload = LogOfTypes([True]).entries[1].payload
    sent = make_message(payload, None)
    assert (sent.edited, sent.deleted) == (False, False)
    body = {"type": "text", "text": "better"}
    edit = json.dumps({"type": "MessageEdited", "body": body, "created_at": "2031"}).encode()
    edited = make_message(payload, edit)
    assert edited == sent.model_copy(update={"body": body, "edited": True, "edited_at": "2031"})
    deleted = make_message(payload, b'{"type": "MessageDeleted"}')
    assert deleted == sent.model_copy(update={"body": None, "deleted": True})
