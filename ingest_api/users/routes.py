"""Users over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from ingest_api.command_route import CommandRoute
from ingest_api.errors import BodyTooLarge, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.state import Chat
from ingest_api.users import commands
from ingest_api.users.model import RegisteredUser, RegisterUser

router = APIRouter(route_class=CommandRoute, prefix="/v1/users", tags=["users"])


@router.post(
    "",
    status_code=201,
    summary="Register a user",
    responses=problems(commands.UsernameTaken, MalformedRequest, BodyTooLarge, DatabaseUnavailable),
)
async def register_user(command: RegisterUser, chat: Chat) -> RegisteredUser:
    """Registers a user. Public: no token is needed."""
    return await commands.register_user(chat, command)
