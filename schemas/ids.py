"""Identifiers as they are written: UUIDs in canonical lower-case text, and the Kafka key of a conversation."""

from __future__ import annotations

import re
from functools import lru_cache

KEY_PREFIX = "conversation:"


_is_uuid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class MalformedKey(ValueError):
    """The Kafka key does not read `conversation:<uuid>`."""


def conversation_key(conversation_id: str) -> str:
    """The Kafka key of every record about this conversation, so that one partition holds them in order."""
    return KEY_PREFIX + conversation_id


@lru_cache(maxsize=4096)
def conversation_id_of_key(key: bytes) -> str:
    """The conversation's id in a Kafka key. Raises MalformedKey. (Where there is one record of a conversation, there
    are more.)"""
    try:
        text = key.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedKey(repr(key)) from error
    prefix, conversation_id = text[: len(KEY_PREFIX)], text[len(KEY_PREFIX) :]
    if prefix != KEY_PREFIX or not is_uuid(conversation_id):
        raise MalformedKey(repr(key))
    return conversation_id


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in canonical form (36 characters, lower case, hyphens)."""
    return _is_uuid(text) is not None
