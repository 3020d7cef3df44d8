"""Settings of the channels app: environment variables CHAT4ALL_<NAME>, read once where the app is wired."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from stream_apps.settings import StreamSettings

Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    NoDecode,
    BeforeValidator(
        lambda value: [item for item in value.replace(" ", "").split(",") if item] if isinstance(value, str) else value
    ),
]


class ChannelSettings(StreamSettings):
    """How messages leave the system."""

    database_user: str = Field(default="chat_channels", description="The role that this program logs in as.")
    delivery_timeout_seconds: float = Field(default=10.0, gt=0, description="How long a target may take to answer.")
    give_up_seconds: float = Field(
        default=72 * 60 * 60, gt=0, description="How long a target may fail before its channel is disabled."
    )
    longest_pause_seconds: float = Field(
        default=900.0, gt=0, description="The longest time between two tries to reach a target that fails."
    )
    webhook_allow_http: bool = Field(default=False, description="Whether a webhook may have an http address.")
    webhook_allowed_networks: Networks = Field(
        default=(),
        description="Networks that webhooks may be in although they are not public, comma-separated (10.1.0.0/16).",
    )
    smtp_host: str = Field(default="", description="The mail server that e-mail is handed to. Empty: none is sent.")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is protected; none is for a server on this machine."
    )
    smtp_username: str = Field(default="", description="Who logs in there. Empty: nobody.")
    smtp_password: SecretStr = Field(default=SecretStr(""), description="That user's password.")
    email_from: str = Field(default="Chat4All <chat4all@localhost>", description="Whom e-mail comes from.")
