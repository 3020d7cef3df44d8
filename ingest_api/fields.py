"""Field types that several commands share: text that PostgreSQL can store, and ids."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from uuid_utils import uuid7


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain the character NUL")
    return text


StorableText = Annotated[str, AfterValidator(_without_nul)]
"""Text without NUL, which PostgreSQL cannot store. (Lone surrogates pydantic refuses by itself.)"""


class CommandModel(BaseModel):
    """What a client may ask for. Members that are not documented are refused, so that a typo is not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def new_id() -> str:
    """A fresh UUIDv7: ids of one moment lie together in the index."""
    return str(uuid7())


def field_of(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where in the JSON a field is that pydantic found malformed. (It names the chosen type of a message's `body` as
    if that were a member of it.)"""
    return tuple(part for before, part in zip((None, *loc), loc, strict=False) if before != "body")
