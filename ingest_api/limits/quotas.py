"""Quotas: how many hits in how many seconds, as an operator writes them and as headers tell them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer
from pydantic_settings import NoDecode

_QUOTA = re.compile(r"(\d{1,9})/(\d{1,6})s")


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `hits` at once, given back evenly over `seconds`: a bucket that drains at hits/seconds. Zero hits mean
    that there is no limit."""

    hits: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.hits}/{self.seconds}s" if self.hits else "0"


def parse_quota(text: str) -> Quota:
    """`600/60s` is 600 hits, given back over 60 seconds; `0` is no limit. Raises ValueError."""
    if text == "0":
        return Quota(0, 0)
    match = _QUOTA.fullmatch(text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise ValueError("write a quota like 600/60s (600 at once, given back over 60 seconds), or 0 for none")
    return Quota(int(match[1]), int(match[2]))


def _read(value: Any) -> Any:
    return parse_quota(value) if isinstance(value, str) else value


QuotaSetting = Annotated[Quota, NoDecode, BeforeValidator(_read), PlainSerializer(str)]
"""A quota as a setting."""
