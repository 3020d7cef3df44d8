"""Registering: one row in `users`."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql import insert

from ingest_api.database import transaction, users
from ingest_api.fields import new_id
from ingest_api.state import State
from ingest_api.users.model import RegisteredUser, RegisterUser
from schemas.problems import ProblemError


class UsernameTaken(ProblemError):
    """Someone has this username; choose another one."""

    code, title, status = "username-taken", "Username taken", 409


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
        .returning(users.c.user_id, users.c.username, users.c.display_name, users.c.created_at)
    )
    async with transaction(chat.engine) as connection:
        row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise UsernameTaken(f"The username {command.username} is taken; choose another one.")
    return RegisteredUser.model_validate(row, from_attributes=True)
