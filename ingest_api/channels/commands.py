"""Setting, verifying, rotating and removing channels: the rows of `channels`, and an event of each change."""

from __future__ import annotations

import hmac
import secrets
from datetime import timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest_api.channels.model import (
    CODE_LIFETIME,
    ROTATION_OVERLAP,
    WRONG_CODES_ALLOWED,
    Channel,
    RemovedChannel,
    RotatedSecret,
    SetChannel,
)
from ingest_api.database import channel_secrets, channels, transaction
from ingest_api.fields import new_id
from ingest_api.security.events import SecurityEvent
from ingest_api.state import State
from schemas.channels import SECRET_BYTES, WEBHOOK, encode_secret, hash_code, verification_code
from schemas.problems import ProblemError


class ChannelNotFound(ProblemError):
    """The caller has not set this channel."""

    code, title, status = "channel-not-found", "Channel not found", 404

    def __init__(self, channel: str) -> None:
        super().__init__(f"You have not set the channel {channel}; PUT /v1/me/channels/{channel} does.")


class WrongCode(ProblemError):
    """This is not the code that was sent last, or it has expired, or too many wrong ones were tried."""

    code, title, status = "wrong-code", "Wrong code", 409


class AddressRefused(ProblemError):
    """This server sends to no such address."""

    code, title, status = "address-refused", "Address refused", 422


class ChannelCause(NamedTuple):
    """Who changes which channel, in which trace."""

    user_id: str
    channel: str
    traceparent: str


_SHOWN = (
    channels.c.channel,
    channels.c.address,
    channels.c.set_at,
    channels.c.verified_at,
    channels.c.failing_since,
    channels.c.last_error,
    channels.c.disabled_at,
)
_EMIT = text(
    "SELECT emit_channel_event(:type, CAST(:user_id AS uuid), :channel, CAST(:channel_id AS uuid), :traceparent)"
)


async def set_channel(chat: State, cause: ChannelCause, address: str) -> SetChannel:
    """The channel as it is now; a code is on its way if it is another one than before. Raises RateLimited,
    AddressRefused, DatabaseUnavailable."""
    if address.startswith("http://") and not chat.webhook_allow_http:
        raise AddressRefused("A webhook's address begins with https://.")
    async with transaction(chat.engine) as connection:
        row = (await connection.execute(_select(cause))).one_or_none()
    if row is not None and row.address == address and row.verified_at is not None and row.disabled_at is None:
        return SetChannel(**_channel(row).model_dump())
    await chat.gate.admit_challenge(cause.user_id, blake2b(address.encode(), digest_size=16).hexdigest())
    channel_id, secret = new_id(), secrets.token_bytes(SECRET_BYTES)
    async with transaction(chat.engine) as connection:
        # Whoever sets the same channel at the same moment waits here; the later one stands.
        await connection.execute(
            select(func.pg_advisory_xact_lock(func.hashtextextended(f"{cause.user_id}:{cause.channel}", 0)))
        )
        await connection.execute(delete(channels).where(*_of(cause)))
        await connection.execute(
            insert(channels).values(
                channel_id=channel_id,
                user_id=cause.user_id,
                channel=cause.channel,
                address=address,
                code_hash=hash_code(verification_code(secret, channel_id)),
                code_expires_at=_in(CODE_LIFETIME),
            )
        )
        await _add_secret(connection, channel_id, secret)
        shown = (await connection.execute(_select(cause))).one()
        await _emit(connection, "ChannelSet", cause, channel_id)
        await chat.audit.record_in(connection, _audited("channel.set", cause, channel_id))
    return SetChannel(
        **_channel(shown).model_dump(), secret=encode_secret(secret) if cause.channel == WEBHOOK else None
    )


async def list_channels(chat: State, user_id: str) -> list[Channel]:
    """All that the user has set. Raises DatabaseUnavailable."""
    async with transaction(chat.engine) as connection:
        rows = await connection.execute(
            select(*_SHOWN).where(channels.c.user_id == user_id).order_by(channels.c.channel)
        )
        return [_channel(row) for row in rows]


async def get_channel(chat: State, user_id: str, channel: str) -> Channel:
    """Raises ChannelNotFound, DatabaseUnavailable."""
    async with transaction(chat.engine) as connection:
        row = (await connection.execute(_select(ChannelCause(user_id, channel, "")))).one_or_none()
    if row is None:
        raise ChannelNotFound(channel)
    return _channel(row)


async def verify_channel(chat: State, cause: ChannelCause, code: str) -> Channel:
    """The channel, in use. May be repeated. Raises ChannelNotFound, WrongCode, DatabaseUnavailable."""
    async with transaction(chat.engine) as connection:
        found = (
            await connection.execute(
                select(
                    channels.c.channel_id,
                    channels.c.code_hash,
                    channels.c.wrong_codes,
                    channels.c.verified_at,
                    (channels.c.code_expires_at > func.clock_timestamp()).label("is_valid"),
                )
                .where(*_of(cause))
                .with_for_update()
            )
        ).one_or_none()
        if found is None:
            raise ChannelNotFound(cause.channel)
        may_try = found.is_valid and found.wrong_codes < WRONG_CODES_ALLOWED
        is_right = may_try and hmac.compare_digest(found.code_hash, hash_code(code))
        if is_right and found.verified_at is None:
            await _change(connection, found.channel_id, verified_at=func.clock_timestamp())
            await _emit(connection, "ChannelVerified", cause, found.channel_id)
            await chat.audit.record_in(connection, _audited("channel.verified", cause, found.channel_id))
        elif may_try and not is_right:
            await _change(connection, found.channel_id, wrong_codes=channels.c.wrong_codes + 1)
        row = (await connection.execute(_select(cause))).one()
    if not is_right:
        raise WrongCode(
            "This is not the code that was sent last, or it cannot be used any more; set the channel again."
        )
    return _channel(row)


async def rotate_secret(chat: State, cause: ChannelCause) -> RotatedSecret:
    """A new signing secret; the one before signs too for a day. Raises ChannelNotFound, DatabaseUnavailable."""
    secret = secrets.token_bytes(SECRET_BYTES)
    async with transaction(chat.engine) as connection:
        channel_id = (
            await connection.execute(select(channels.c.channel_id).where(*_of(cause)).with_for_update())
        ).scalar_one_or_none()
        if channel_id is None:
            raise ChannelNotFound(cause.channel)
        expires_at = (await connection.execute(select(_in(ROTATION_OVERLAP)))).scalar_one()
        await connection.execute(
            update(channel_secrets)
            .where(channel_secrets.c.channel_id == channel_id, channel_secrets.c.expires_at.is_(None))
            .values(expires_at=expires_at)
        )
        await _add_secret(connection, channel_id, secret)
        await chat.audit.record_in(connection, _audited("channel.secret_rotated", cause, channel_id))
    return RotatedSecret(secret=encode_secret(secret), previous_expires_at=expires_at)


async def remove_channel(chat: State, cause: ChannelCause) -> RemovedChannel:
    """Removes the channel with its secrets and all that was to be delivered. May be repeated. Raises
    DatabaseUnavailable."""
    async with transaction(chat.engine) as connection:
        channel_id = (
            await connection.execute(delete(channels).where(*_of(cause)).returning(channels.c.channel_id))
        ).scalar_one_or_none()
        if channel_id is not None:
            await _emit(connection, "ChannelRemoved", cause, channel_id)
            await chat.audit.record_in(connection, _audited("channel.removed", cause, channel_id))
    return RemovedChannel(channel=cause.channel)


def _of(cause: ChannelCause) -> tuple[Any, ...]:
    return channels.c.user_id == cause.user_id, channels.c.channel == cause.channel


def _select(cause: ChannelCause) -> Any:
    return select(*_SHOWN).where(*_of(cause))


def _in(period: timedelta) -> Any:
    return func.clock_timestamp() + text(f"interval '{int(period.total_seconds())} seconds'").self_group()


async def _change(connection: AsyncConnection, channel_id: str, **values: Any) -> None:
    await connection.execute(update(channels).where(channels.c.channel_id == channel_id).values(**values))


async def _add_secret(connection: AsyncConnection, channel_id: str, secret: bytes) -> None:
    await connection.execute(insert(channel_secrets).values(secret_id=new_id(), channel_id=channel_id, secret=secret))


async def _emit(connection: AsyncConnection, kind: str, cause: ChannelCause, channel_id: str) -> None:
    await connection.execute(_EMIT, {"type": kind, "channel_id": channel_id, **cause._asdict()})


def _audited(action: str, cause: ChannelCause, channel_id: str) -> SecurityEvent:
    return SecurityEvent(action, cause.user_id, {"channel": cause.channel, "channel_id": channel_id})


def _channel(row: Row[Any]) -> Channel:
    if row.verified_at is None:
        state = "unverified"
    elif row.disabled_at is not None:
        state = "disabled"
    else:
        state = "active" if row.failing_since is None else "failing"
    return Channel.model_validate({**row._asdict(), "state": state})
