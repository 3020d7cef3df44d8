"""Registering, and the own profile: one row in `users`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Row, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from ingest_api.database import transaction, users
from ingest_api.fields import new_id
from ingest_api.security.events import SecurityEvent
from ingest_api.state import State
from ingest_api.users.model import ChangeProfile, FoundUsers, RegisteredUser, RegisterUser
from schemas.problems import ProblemError


class UsernameTaken(ProblemError):
    """Someone has this username; choose another one."""

    code, title, status = "username-taken", "Username taken", 409


class UserNotFound(ProblemError):
    """The user of this access token is not registered (any more)."""

    code, title, status = "user-not-found", "User not found", 404


_PROFILE = (users.c.user_id, users.c.username, users.c.display_name, users.c.created_at)


async def register_user(chat: State, command: RegisterUser) -> RegisteredUser:
    """Stores the user with the password's hash. Raises UsernameTaken, DatabaseUnavailable."""
    password_hash = await chat.passwords.hash(command.password.get_secret_value())
    statement = (
        insert(users)
        .values(
            user_id=new_id(),
            username=command.username,
            display_name=command.display_name or command.username,
            password_hash=password_hash,
        )
        .on_conflict_do_nothing(index_elements=[users.c.username])
        .returning(*_PROFILE)
    )
    async with transaction(chat.engine) as connection:
        row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise UsernameTaken(f"The username {command.username} is taken; choose another one.")
        await chat.audit.record_in(connection, SecurityEvent("user.created", row.user_id))
    return RegisteredUser.model_validate(row, from_attributes=True)


async def get_profile(chat: State, user_id: str) -> RegisteredUser:
    """The user's profile. Raises UserNotFound, DatabaseUnavailable."""
    async with transaction(chat.engine) as connection:
        row = (await connection.execute(select(*_PROFILE).where(users.c.user_id == user_id))).one_or_none()
    return _profile(row)


async def find_users(chat: State, *, usernames: Collection[str], user_ids: Collection[str]) -> FoundUsers:
    """Those whose whole username or id this is. Raises DatabaseUnavailable."""
    if not usernames and not user_ids:
        return FoundUsers(users=[])
    statement = (
        select(*_PROFILE)
        .where(or_(users.c.username.in_(usernames), users.c.user_id.in_(user_ids)))
        .order_by(users.c.username)
    )
    async with transaction(chat.engine) as connection:
        rows = (await connection.execute(statement)).all()
    return FoundUsers(users=[RegisteredUser.model_validate(row, from_attributes=True) for row in rows])


async def change_profile(chat: State, command: ChangeProfile, user_id: str) -> RegisteredUser:
    """The profile as it is now. Raises UserNotFound, DatabaseUnavailable."""
    if "display_name" not in command.model_fields_set:
        return await get_profile(chat, user_id)
    statement = (
        update(users)
        .where(users.c.user_id == user_id)
        .values(display_name=func.coalesce(command.display_name, users.c.username))
        .returning(*_PROFILE)
    )
    async with transaction(chat.engine) as connection:
        row = (await connection.execute(statement)).one_or_none()
    return _profile(row)


def _profile(row: Row[tuple[str, str, str, datetime]] | None) -> RegisteredUser:
    if row is None:
        raise UserNotFound("The user of this access token is not registered.")
    return RegisteredUser.model_validate(row, from_attributes=True)
