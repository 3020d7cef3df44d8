"""One user's client: writes, reads, and live events."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from chat4all_client.errors import NotAccepted, Unreachable
from chat4all_client.http import Session, raise_for_status
from chat4all_client.live import Live, Transport
from chat4all_client.model import Accepted, Event, Message, Page

MAX_PAGE = 200


class Chat:
    """Speaks for one user. `writes_url` is the API's address, `reads_url` delivery's; with a gateway they are one.

    Methods raise Refused when the server says no, LoggedOut when there is no token any more, and Unreachable when it
    has not answered within `within_seconds`, for which everything that may be repeated is tried again.
    """

    def __init__(self, writes_url: str, reads_url: str | None = None, *, within_seconds: float = 30.0) -> None:
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(within_seconds, connect=5.0), trust_env=False)
        self._session = Session(writes_url, reads_url or writes_url, self._http)
        self._within_seconds = within_seconds
        self._user_id: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections. The tokens stay good; `log_out` ends them."""
        await self._http.aclose()

    @property
    def user_id(self) -> str:
        """Whose client this is; known after `register` or `login`."""
        if self._user_id is None:
            raise ValueError("Nobody is logged in: register or log in first.")
        return self._user_id

    async def register(self, username: str, password: str, *, display_name: str | None = None) -> str:
        """Makes an account and logs in. The user's id. (Not tried again: whether it was made would be unknown.)"""
        body = {"username": username, "password": password}
        if display_name is not None:
            body["display_name"] = display_name
        answer = await self._session.send("POST", f"{self._session.writes_url}/v1/users", json=body)
        raise_for_status(answer)
        await self.login(username, password)
        return self.user_id

    async def login(self, username: str, password: str) -> str:
        """Gets tokens. The user's id."""
        await self._session.log_in(username, password)
        answer = await self._session.call_until_answered(
            "GET", f"{self._session.writes_url}/v1/users/me", within_seconds=self._within_seconds
        )
        self._user_id = str(answer.json()["user_id"])
        return self._user_id

    async def log_out(self) -> None:
        """Ends the login: its tokens cannot be refreshed any more."""
        await self._session.revoke()

    # Writes.

    async def create_conversation(
        self, participants: Sequence[str] = (), *, title: str | None = None, conversation_id: str | None = None
    ) -> str:
        """A conversation with these users (and this one). Its id."""
        body: dict[str, Any] = {
            "conversation_id": conversation_id or str(uuid.uuid4()),
            "participants": list(participants),
        }
        if title is not None:
            body["title"] = title
        return str((await self._write("POST", "", json=body)).json()["conversation_id"])

    async def send(
        self,
        conversation_id: str,
        body: str | Mapping[str, Any],
        *,
        reply_to: str | None = None,
        message_id: str | None = None,
        within_seconds: float | None = None,
    ) -> Accepted:
        """A message (a text, or a body as the API takes it), tried again under one id until it is accepted or refused.
        Raises NotAccepted when that did not happen in time."""
        chosen_id = message_id or str(uuid.uuid4())
        message: dict[str, Any] = {
            "message_id": chosen_id,
            "body": {"type": "text", "text": body} if isinstance(body, str) else dict(body),
        }
        if reply_to is not None:
            message["reply_to"] = reply_to
        try:
            answer = await self._write(
                "POST", f"/{conversation_id}/messages", json=message, within_seconds=within_seconds
            )
        except Unreachable as error:
            raise NotAccepted(chosen_id) from error
        return _accepted(answer)

    async def edit(self, conversation_id: str, message_id: str, text: str) -> int:
        """Gives a message another text. The edit's seq."""
        body = {"body": {"type": "text", "text": text}}
        return await self._change("PATCH", f"/{conversation_id}/messages/{message_id}", json=body)

    async def delete(self, conversation_id: str, message_id: str) -> int:
        """Lets a message be shown no longer. The deletion's seq."""
        return await self._change("DELETE", f"/{conversation_id}/messages/{message_id}")

    async def add_participant(self, conversation_id: str, user_id: str) -> int:
        """Brings a user in. The seq at which it joins."""
        return await self._change("POST", f"/{conversation_id}/participants", json={"user_id": user_id})

    async def remove_participant(self, conversation_id: str, user_id: str) -> int:
        """Removes a user, or leaves. The last seq that it sees."""
        return await self._change("DELETE", f"/{conversation_id}/participants/{user_id}")

    async def set_title(self, conversation_id: str, title: str | None) -> int:
        """Another title, or none. The change's seq."""
        return await self._change("PATCH", f"/{conversation_id}", json={"title": title})

    async def advance_receipt(
        self, conversation_id: str, *, delivered_seq: int | None = None, read_seq: int | None = None
    ) -> Mapping[str, Any]:
        """Says how far this user has received and read. The maxima that the server now holds."""
        given = {"delivered_seq": delivered_seq, "read_seq": read_seq}
        body = {name: seq for name, seq in given.items() if seq is not None}
        answer = await self._write("PUT", f"/{conversation_id}/receipt", json=body)
        held: Mapping[str, Any] = answer.json()
        return held

    # Reads.

    async def inbox(self, *, limit: int = 50) -> AsyncIterator[Mapping[str, Any]]:
        """The user's conversations, most recently active first, as the server tells them; page by page."""
        cursor: str | None = None
        while True:
            parameters: dict[str, Any] = {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor}
            page = (await self._read("", parameters)).json()
            for line in page["conversations"]:
                yield line
            cursor = page["next"]
            if cursor is None:
                return

    async def conversation(self, conversation_id: str) -> Mapping[str, Any]:
        """Title, participants, receipts and seq, as the server tells them."""
        found: Mapping[str, Any] = (await self._read(f"/{conversation_id}", {})).json()
        return found

    async def online(self, conversation_id: str) -> list[str]:
        """The participants who are online, as far as that is known."""
        return list((await self._read(f"/{conversation_id}/presence", {})).json()["online"])

    async def hops(self, conversation_id: str, message_id: str) -> Mapping[str, Any]:
        """When a message came how far on its way, as the server tells it."""
        found: Mapping[str, Any] = (await self._read(f"/{conversation_id}/messages/{message_id}/hops", {})).json()
        return found

    async def page(
        self,
        conversation_id: str,
        *,
        after_seq: int | None = None,
        before_seq: int | None = None,
        min_seq: int | None = None,
        limit: int = 50,
    ) -> Page:
        """Messages after a seq, or else before one, or else the newest. `min_seq` reads what one has just written."""
        given = {"after_seq": after_seq, "before_seq": before_seq, "min_seq": min_seq, "limit": limit}
        parameters = {name: value for name, value in given.items() if value is not None}
        page = (await self._read(f"/{conversation_id}/messages", parameters)).json()
        return Page([Message.from_json(each) for each in page["messages"]], page["next"], page["prev"])

    async def history(self, conversation_id: str, *, after_seq: int = 0) -> AsyncIterator[Message]:
        """All messages after a seq, oldest first."""
        position: int | None = after_seq
        while position is not None:
            page = await self.page(conversation_id, after_seq=position, limit=MAX_PAGE)
            for message in page.messages:
                yield message
            position = page.next

    async def events(self, conversation_id: str, *, after_seq: int = 0) -> AsyncIterator[Event]:
        """All log entries after a seq that this user may see, in seq order."""
        position: int | None = after_seq
        while position is not None:
            parameters = {"after_seq": position, "limit": MAX_PAGE}
            page = (await self._read(f"/{conversation_id}/events", parameters)).json()
            for event in page["events"]:
                yield Event.from_json(event)
            position = page["next"]

    def live(
        self,
        conversation_id: str | None = None,
        *,
        cursor: str | None = None,
        transport: Transport = "websocket",
        fills_gaps: bool = True,
    ) -> Live:
        """The live events of all conversations, or of one, from now or from a cursor; see Live."""
        return Live(
            self._session,
            self,
            conversation_id=conversation_id,
            cursor=cursor,
            transport=transport,
            fills_gaps=fills_gaps,
        )

    async def _read(self, path: str, parameters: Mapping[str, Any]) -> httpx.Response:
        return await self._session.call_until_answered(
            "GET",
            f"{self._session.reads_url}/v1/conversations{path}",
            params=dict(parameters),
            within_seconds=self._within_seconds,
        )

    async def _write(
        self, method: str, path: str, *, within_seconds: float | None = None, **arguments: Any
    ) -> httpx.Response:
        """Every write may be repeated: it carries an id that the server knows again."""
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method != "PUT" else {}
        return await self._session.call_until_answered(
            method,
            f"{self._session.writes_url}/v1/conversations{path}",
            headers=headers,
            within_seconds=self._within_seconds if within_seconds is None else within_seconds,
            **arguments,
        )

    async def _change(self, method: str, path: str, **arguments: Any) -> int:
        return int((await self._write(method, path, **arguments)).json()["seq"])


def _accepted(answer: httpx.Response) -> Accepted:
    fields = answer.json()
    return Accepted(
        fields["message_id"],
        fields["conversation_id"],
        fields["seq"],
        fields["created_at"],
        answer.headers.get("Idempotency-Replayed") == "true",
    )
