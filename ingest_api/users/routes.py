"""Users over HTTP."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from ingest_api.admission.refusals import Overloaded, ShuttingDown
from ingest_api.command_route import REFUSALS, CommandRoute
from ingest_api.errors import BodyTooLarge, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.limits.limiter import RateLimited
from ingest_api.security.authenticator import UnknownUser
from ingest_api.security.external_issuers import IssuerUnavailable
from ingest_api.security.passwords import LoginsSaturated
from ingest_api.security.principals import Caller, InsufficientScope, Unauthenticated
from ingest_api.state import Chat
from ingest_api.users import commands
from ingest_api.users.model import ChangeProfile, FoundUsers, RegisteredUser, RegisterUser, Username

router = APIRouter(route_class=CommandRoute, prefix="/v1/users", tags=["users"])
lookup_router = APIRouter(prefix="/v1/users", tags=["users"])

MAX_LOOKUPS = 100


@router.post(
    "",
    status_code=201,
    summary="Register a user",
    responses=problems(
        commands.UsernameTaken,
        RateLimited,
        Overloaded,
        ShuttingDown,
        LoginsSaturated,
        MalformedRequest,
        BodyTooLarge,
        DatabaseUnavailable,
    ),
)
async def register_user(command: RegisterUser, chat: Chat) -> RegisteredUser:
    """Registers a user. Public: no token is needed."""
    return await commands.register_user(chat, command)


@router.get(
    "/me",
    summary="Your own profile",
    responses=problems(*REFUSALS, commands.UserNotFound, DatabaseUnavailable),
)
async def get_profile(caller: Caller, chat: Chat) -> RegisteredUser:
    """The caller's profile."""
    return await commands.get_profile(chat, caller.user_id)


@router.patch(
    "/me",
    summary="Change your own profile",
    responses=problems(
        *REFUSALS,
        commands.UserNotFound,
        MalformedRequest,
        BodyTooLarge,
        DatabaseUnavailable,
    ),
)
async def change_profile(command: ChangeProfile, caller: Caller, chat: Chat) -> RegisteredUser:
    """Changes the caller's profile, and answers what it is now."""
    return await commands.change_profile(chat, command, caller.user_id)


@lookup_router.get(
    "",
    summary="Find users by their username or id",
    responses=problems(
        Unauthenticated,
        InsufficientScope,
        UnknownUser,
        IssuerUnavailable,
        RateLimited,
        ShuttingDown,
        MalformedRequest,
        DatabaseUnavailable,
    ),
)
async def find_users(
    caller: Caller,
    chat: Chat,
    username: Annotated[
        list[Username], Query(default_factory=list, max_length=MAX_LOOKUPS, description="Whole usernames; repeat it.")
    ],
    user_id: Annotated[
        list[UUID], Query(default_factory=list, max_length=MAX_LOOKUPS, description="User ids; repeat it.")
    ],
) -> FoundUsers:
    """The users with these usernames and ids; who is not there is left out. There is no search by part of a name, and
    each name and id counts against the limit user-lookups: this is no directory."""
    await chat.gate.admit_lookup(caller.user_id, len(username) + len(user_id))
    return await commands.find_users(chat, usernames=username, user_ids=[str(each) for each in user_id])
