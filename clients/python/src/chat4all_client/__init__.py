"""A client of Chat4All. `Chat` is one user's; `chat4all_client.sync.Chat` is the same without `await`."""

from chat4all_client.chat import Chat
from chat4all_client.errors import ChatError, LoggedOut, NotAccepted, Refused, Unreachable
from chat4all_client.live import Live
from chat4all_client.model import Accepted, Event, Gap, Message, Page

__all__ = [
    "Accepted",
    "Chat",
    "ChatError",
    "Event",
    "Gap",
    "Live",
    "LoggedOut",
    "Message",
    "NotAccepted",
    "Page",
    "Refused",
    "Unreachable",
]
