"""Channels over HTTP: the same calls for each channel, beside what is particular to it."""

from __future__ import annotations

from fastapi import APIRouter, Request

from ingest_api.channels import commands
from ingest_api.channels.commands import AddressRefused, ChannelCause, ChannelNotFound, WrongCode
from ingest_api.channels.model import (
    Channel,
    Channels,
    RemovedChannel,
    RotatedSecret,
    SetChannel,
    SetEmail,
    SetWebhook,
    VerifyChannel,
)
from ingest_api.command_route import REFUSALS, CommandRoute
from ingest_api.errors import BodyTooLarge, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.security.principals import Caller
from ingest_api.state import Chat
from ingest_api.telemetry import trace_context
from schemas.channels import CHANNELS, EMAIL, WEBHOOK

router = APIRouter(route_class=CommandRoute, prefix="/v1/me/channels", tags=["channels"])

SET_PROBLEMS = problems(*REFUSALS, MalformedRequest, AddressRefused, BodyTooLarge, DatabaseUnavailable)
ONE_PROBLEMS = problems(*REFUSALS, ChannelNotFound, DatabaseUnavailable)


def _cause(caller: Caller, channel: str, request: Request) -> ChannelCause:
    return ChannelCause(caller.user_id, channel, trace_context(request.headers.get("traceparent")))


@router.get("", summary="Your channels", responses=problems(*REFUSALS, DatabaseUnavailable))
async def list_channels(caller: Caller, chat: Chat) -> Channels:
    """Every channel that the caller has set."""
    return Channels(channels=await commands.list_channels(chat, caller.user_id))


@router.put(f"/{WEBHOOK}", summary="Have messages sent to a webhook", responses=SET_PROBLEMS)
async def set_webhook(command: SetWebhook, caller: Caller, chat: Chat, request: Request) -> SetChannel:
    """Sets the caller's webhook, in place of the one before. A signed POST with a code goes there; messages do once the
    code has come back by POST …/verification. Setting what is in use already changes nothing."""
    return await commands.set_channel(chat, _cause(caller, WEBHOOK, request), command.url)


@router.put(f"/{EMAIL}", summary="Have messages sent to an e-mail address", responses=SET_PROBLEMS)
async def set_email(command: SetEmail, caller: Caller, chat: Chat, request: Request) -> SetChannel:
    """Sets the caller's e-mail address, in place of the one before. A mail with a code goes there; messages do once the
    code has come back by POST …/verification. Setting what is in use already changes nothing."""
    return await commands.set_channel(chat, _cause(caller, EMAIL, request), command.address)


@router.post(
    f"/{WEBHOOK}/secret",
    summary="Replace the webhook's signing secret",
    responses=ONE_PROBLEMS,
)
async def rotate_secret(caller: Caller, chat: Chat, request: Request) -> RotatedSecret:
    """Makes a new signing secret. For a day everything is signed by both."""
    return await commands.rotate_secret(chat, _cause(caller, WEBHOOK, request))


def _add_common_routes(channel: str) -> None:
    @router.get(f"/{channel}", summary=f"Your channel {channel}", responses=ONE_PROBLEMS, name=f"get_{channel}")
    async def get_channel(caller: Caller, chat: Chat) -> Channel:
        """How the channel is."""
        return await commands.get_channel(chat, caller.user_id, channel)

    @router.post(
        f"/{channel}/verification",
        summary=f"Verify your channel {channel}",
        responses=problems(*REFUSALS, ChannelNotFound, WrongCode, MalformedRequest, BodyTooLarge, DatabaseUnavailable),
        name=f"verify_{channel}",
    )
    async def verify_channel(command: VerifyChannel, caller: Caller, chat: Chat, request: Request) -> Channel:
        """Takes the code that was sent over the channel: what is sent to the caller's conversations from now on goes
        there."""
        return await commands.verify_channel(chat, _cause(caller, channel, request), command.code)

    @router.delete(
        f"/{channel}",
        summary=f"Remove your channel {channel}",
        responses=problems(*REFUSALS, DatabaseUnavailable),
        name=f"remove_{channel}",
    )
    async def remove_channel(caller: Caller, chat: Chat, request: Request) -> RemovedChannel:
        """Removes the channel. What was not delivered over it is not any more."""
        return await commands.remove_channel(chat, _cause(caller, channel, request))


for _channel in CHANNELS:
    _add_common_routes(_channel)
