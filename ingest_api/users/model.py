"""What registering and changing the own profile takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from ingest_api.fields import CommandModel, StorableText

Username = Annotated[
    str,
    StringConstraints(to_lower=True, min_length=3, max_length=32, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
]


class RegisterUser(CommandModel):
    """Registers a user. Usernames are compared in lower case."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"username": "alice", "password": "correct horse battery"}]}
    )

    username: Username
    password: SecretStr = Field(min_length=8, max_length=128)
    display_name: StorableText | None = Field(default=None, min_length=1, max_length=100)


class ChangeProfile(CommandModel):
    """Changes the caller's profile; a member that is absent stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"display_name": "Alice B."}]})

    display_name: StorableText | None = Field(
        default=None, min_length=1, max_length=100, description="Null: the username again."
    )


class RegisteredUser(BaseModel):
    """A user as others may see it."""

    user_id: str
    username: str
    display_name: str
    created_at: datetime


class FoundUsers(BaseModel):
    """Those of the users asked for that there are, each once, by username."""

    users: list[RegisteredUser]
