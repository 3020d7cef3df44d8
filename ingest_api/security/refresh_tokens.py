"""Refresh tokens (RFC 6749, section 6), each used once: the family of one that is used again is revoked (RFC 9700,
section 4.14). Only their SHA-256 is stored; 256 random bits need no slow hash."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest_api.database import refresh_token_families as families
from ingest_api.database import refresh_tokens as tokens
from ingest_api.fields import new_id
from ingest_api.security.oauth_model import Client

LIFETIME = timedelta(days=30)
"""From the login on, however often it is refreshed."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token whose family is neither revoked nor expired, as Authlib asks for it. It may have been used."""

    token_hash: bytes
    family_id: str
    user_id: str
    client_id: str
    scopes: tuple[str, ...]

    def check_client(self, client: Client) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return " ".join(self.scopes)


class Rotation(Enum):
    """What became of an attempt to use a refresh token."""

    ROTATED = "rotated"
    REUSED = "reused"
    REFUSED = "refused"


def new_refresh_token() -> str:
    """A fresh token: 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_refresh_token(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


async def find_refresh_token(connection: AsyncConnection, token: str) -> RefreshToken | None:
    """The token, if its family lives."""
    statement = (
        select(tokens.c.token_hash, families.c.family_id, families.c.user_id, families.c.client_id, families.c.scopes)
        .join(families, families.c.family_id == tokens.c.family_id)
        .where(
            tokens.c.token_hash == hash_refresh_token(token),
            families.c.revoked_at.is_(None),
            families.c.expires_at > func.now(),
        )
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return None
    return RefreshToken(bytes(row.token_hash), row.family_id, row.user_id, row.client_id, tuple(row.scopes))


async def start_family(
    connection: AsyncConnection, token: str, *, user_id: str, client_id: str, scopes: list[str]
) -> None:
    """Stores the first token of a login. Families of this user that have expired go, as nobody else removes them."""
    now = datetime.now(UTC)
    await connection.execute(delete(families).where(families.c.user_id == user_id, families.c.expires_at < now))
    family_id = new_id()
    await connection.execute(
        insert(families).values(
            family_id=family_id, user_id=user_id, client_id=client_id, scopes=scopes, expires_at=now + LIFETIME
        )
    )
    await connection.execute(insert(tokens).values(token_hash=hash_refresh_token(token), family_id=family_id))


async def rotate(connection: AsyncConnection, used: RefreshToken, successor: str) -> Rotation:
    """Uses a token up and stores its successor. The family's row is locked, so of two attempts with one token the
    second sees what the first did, and takes the successor with it."""
    locked = await connection.execute(
        select(families.c.family_id)
        .where(
            families.c.family_id == used.family_id,
            families.c.revoked_at.is_(None),
            families.c.expires_at > func.now(),
        )
        .with_for_update()
    )
    if locked.one_or_none() is None:
        return Rotation.REFUSED
    taken = await connection.execute(
        update(tokens)
        .where(tokens.c.token_hash == used.token_hash, tokens.c.used_at.is_(None))
        .values(used_at=func.now())
        .returning(tokens.c.token_hash)
    )
    if taken.one_or_none() is None:
        await revoke_family(connection, used.family_id)
        return Rotation.REUSED
    await connection.execute(insert(tokens).values(token_hash=hash_refresh_token(successor), family_id=used.family_id))
    return Rotation.ROTATED


async def revoke_family(connection: AsyncConnection, family_id: str) -> None:
    """Makes every token of the family worthless."""
    await connection.execute(
        update(families)
        .where(families.c.family_id == family_id, families.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
