"""Users over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from ingest_api.admission.refusals import Overloaded, ShuttingDown
from ingest_api.command_route import REFUSALS, CommandRoute
from ingest_api.errors import BodyTooLarge, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.limits.limiter import RateLimited
from ingest_api.security.passwords import LoginsSaturated
from ingest_api.security.principals import Caller
from ingest_api.state import Chat
from ingest_api.users import commands
from ingest_api.users.model import ChangeProfile, RegisteredUser, RegisterUser

router = APIRouter(route_class=CommandRoute, prefix="/v1/users", tags=["users"])


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
