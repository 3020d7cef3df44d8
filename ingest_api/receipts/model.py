"""What a receipt takes and gives."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ingest_api.fields import CommandModel

MAX_SEQ = 2**63 - 1


class AdvanceReceipt(CommandModel):
    """Says how far the caller has received and read. What is read is delivered; an older number changes nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"delivered_seq": 42, "read_seq": 40}]})

    delivered_seq: int | None = Field(default=None, ge=0, le=MAX_SEQ, strict=True)
    read_seq: int | None = Field(default=None, ge=0, le=MAX_SEQ, strict=True)


class HeldReceipt(BaseModel):
    """The maxima that are now held."""

    delivered_seq: int
    read_seq: int


class NewReceipt(NamedTuple):
    """A receipt to be held."""

    conversation_id: str
    user_id: str
    delivered_seq: int | None
    read_seq: int | None
    traceparent: str
