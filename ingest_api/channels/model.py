"""What setting, verifying and removing a channel takes and gives, and which addresses can be one."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ingest_api.fields import CommandModel, StorableText
from schemas.channels import CODE_LENGTH

CODE_LIFETIME = timedelta(days=1)
WRONG_CODES_ALLOWED = 10
ROTATION_OVERLAP = timedelta(days=1)
"""How long a secret that was replaced signs besides the new one."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_is_host = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?").fullmatch
_is_local_part = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*").fullmatch


def _check_url(url: str) -> str:
    if any(ord(character) <= 32 or ord(character) >= 127 for character in url):
        raise ValueError("must be an address in ASCII, without spaces (percent-encode others)")
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise ValueError("must begin with https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or a password; check the signature instead")
    if parts.fragment:
        raise ValueError("must not have a fragment (#…)")
    if parts.port == 0 or not _names_host(parts.hostname or ""):
        raise ValueError("must name a host")
    return url


def _names_host(host: str) -> bool:
    if _is_host(host) and len(host) <= 253:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_email(address: str) -> str:
    local_part, _, domain = address.rpartition("@")
    if len(local_part) > 64 or not _is_local_part(local_part) or not _is_host(domain) or "." not in domain:
        raise ValueError("must be an e-mail address such as alice@example.org")
    return f"{local_part}@{domain.lower()}"


class SetWebhook(CommandModel):
    """Has the caller's messages sent to a URL by HTTP POST."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"url": "https://example.org/chat4all"}]})

    url: Annotated[StorableText, AfterValidator(_check_url)] = Field(
        min_length=8,
        max_length=2000,
        json_schema_extra={"pattern": r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]+)?([/?][!-~]*)?$"},
        description="https; not an address of a private network.",
    )


class SetEmail(CommandModel):
    """Has the caller's messages sent to an e-mail address."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"address": "alice@example.org"}]})

    address: Annotated[StorableText, AfterValidator(_check_email)] = Field(
        min_length=3, max_length=254, json_schema_extra={"pattern": r"^[!-?A-~]+@[A-Za-z0-9.-]+\.[A-Za-z0-9]+$"}
    )


class VerifyChannel(CommandModel):
    """Proves that the caller receives what is sent over the channel, by the code that was sent over it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "K7QZ2M4XVA"}]})

    code: str = Field(
        min_length=CODE_LENGTH, max_length=2 * CODE_LENGTH, description="Spaces, hyphens and case do not matter."
    )


class Channel(BaseModel):
    """A channel as its user sees it."""

    channel: str = Field(examples=["webhook"])
    address: str = Field(examples=["https://example.org/chat4all"])
    state: Literal["unverified", "active", "failing", "disabled"] = Field(
        description="unverified: a code is sent or was sent; active: messages are sent; failing: they are tried again "
        "and again; disabled: they are no longer (set the channel again)."
    )
    set_at: datetime
    verified_at: datetime | None
    last_error: str | None = Field(description="Why the latest try failed, as long as none has succeeded since.")


class SetChannel(Channel):
    """The channel as it is now."""

    secret: str | None = Field(
        default=None,
        description="The webhook's signing secret, shown this once. null when nothing changed, and for e-mail.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )


class RotatedSecret(BaseModel):
    """The new signing secret, shown this once."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    previous_expires_at: datetime = Field(description="Until then everything is signed by the previous one as well.")


class Channels(BaseModel):
    """The caller's channels."""

    channels: list[Channel]


class RemovedChannel(BaseModel):
    """The channel is removed, or was not there."""

    channel: str = Field(examples=["webhook"])
