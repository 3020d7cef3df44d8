"""Settings of the ingest API: environment variables CHAT4ALL_<NAME>, read once where the program is wired."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ingest_api.limits.quotas import Quota, QuotaSetting
from ingest_api.security.external_issuers import TrustedIssuer

Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    NoDecode,
    BeforeValidator(
        lambda value: [item for item in value.replace(" ", "").split(",") if item] if isinstance(value, str) else value
    ),
    PlainSerializer(lambda networks: ",".join(map(str, networks))),
]
"""Networks as an operator writes them: `10.0.0.0/8,fd00::/8`."""


class DatabaseSettings(BaseSettings):
    """Where PostgreSQL is and who logs in."""

    model_config = SettingsConfigDict(env_prefix="CHAT4ALL_", extra="ignore")

    database_host: str = Field(default="127.0.0.1", description="PostgreSQL's host.")
    database_port: int = Field(default=5433, ge=1, le=65535, description="PostgreSQL's port.")
    database_name: str = Field(default="chat4all", description="The database.")
    database_user: str = Field(default="chat_api", description="The role that this program logs in as.")
    database_password: SecretStr = Field(default=SecretStr(""), description="That role's password.")

    def connection_arguments(self) -> dict[str, Any]:
        """psycopg's connection parameters. Not for logs: the password is among them."""
        return {
            "host": self.database_host,
            "port": self.database_port,
            "dbname": self.database_name,
            "user": self.database_user,
            "password": self.database_password.get_secret_value(),
            "application_name": "chat4all ingest_api",
            "connect_timeout": 5,
        }


class MigrationSettings(DatabaseSettings):
    """What `python -m ingest_api.migrate` needs: the owner's login, and the passwords that the other roles get."""

    database_user: str = Field(default="chat_owner", description="The database's owner (may create roles).")
    api_password: SecretStr = Field(description="Password of the role chat_api.")
    cdc_password: SecretStr = Field(description="Password of the role chat_cdc.")
    reader_password: SecretStr = Field(description="Password of the role chat_reader.")
    monitor_password: SecretStr = Field(description="Password of the role chat_monitor.")
    recovery_password: SecretStr = Field(description="Password of the role chat_recovery.")
    channels_password: SecretStr = Field(description="Password of the role chat_channels.")


class Settings(DatabaseSettings):
    """Everything that the API can be told."""

    issuer: str = Field(
        default="http://127.0.0.1:8000", description="The `iss` of access tokens: this API's public address."
    )
    signing_key_file: Path = Field(
        description="Private JWK set that signs access tokens (python -m ingest_api.signing_keys makes one)."
    )
    writer_connections: int = Field(
        default=2, ge=1, le=16, description="Connections over which the log writer commits batches."
    )
    writer_batch_size: int = Field(
        default=256, ge=1, le=2000, description="The most log entries that one commit takes."
    )
    writer_queue_size: int = Field(
        default=4000, ge=1, description="Entries that may wait for a commit; more are answered 503."
    )
    writer_timeout_seconds: float = Field(
        default=10.0, gt=0, description="How long one commit may take before its outcome counts as unknown."
    )
    commands_served: int = Field(
        default=32,
        ge=1,
        description="Commands that are worked on at once; the others wait (in a crowd the newest is next).",
    )
    commands_waiting: int = Field(default=10_000, ge=0, description="Commands that may wait for their turn.")
    command_patience_seconds: float = Field(
        default=2.0, gt=0, description="How long a command waits for its turn before it is answered 503."
    )
    redis_host: str = Field(
        default="127.0.0.1",
        description="Redis' host: the processes share their rate limits there. Empty: each has its own.",
    )
    redis_port: int = Field(default=6380, ge=1, le=65535, description="Redis' port.")
    redis_username: str = Field(
        default="", description="Redis' ACL user (it needs the keys ratelimit:* alone); empty: the default user."
    )
    redis_password: SecretStr = Field(default=SecretStr(""), description="That user's password.")
    redis_timeout_seconds: float = Field(
        default=0.05, gt=0, description="How long Redis may take before a rate limit is decided without it."
    )
    redis_retry_seconds: float = Field(
        default=1.0, gt=0, description="How long Redis is left alone after it has not answered."
    )
    limit_user_sends: QuotaSetting = Field(
        default=Quota(600, 60),
        description="Messages that a user may send; 600/60s are 600 at once and 10/s, 0 is no limit.",
    )
    limit_user_commands: QuotaSetting = Field(default=Quota(300, 60), description="Other commands of a user.")
    limit_conversation_sends: QuotaSetting = Field(
        default=Quota(3000, 60), description="Messages that a conversation takes, of all its participants."
    )
    limit_address_logins: QuotaSetting = Field(
        default=Quota(60, 60), description="Token requests from a client address (of IPv6, a /64)."
    )
    limit_address_registrations: QuotaSetting = Field(
        default=Quota(20, 600), description="Registrations from a client address."
    )
    limit_user_challenges: QuotaSetting = Field(
        default=Quota(10, 3600), description="Channels that a user may set: each is sent a verification code."
    )
    limit_channel_challenges: QuotaSetting = Field(
        default=Quota(5, 3600), description="Verification codes that one address is sent, of whatever user."
    )
    limit_user_lookups: QuotaSetting = Field(
        default=Quota(300, 60), description="Users that a user may look up, by name or by id."
    )
    webhook_allow_http: bool = Field(
        default=False, description="Whether a webhook may have an http address; for tests and private networks."
    )
    trusted_proxies: Networks = Field(
        default=(), description="Networks whose X-Forwarded-For is believed, comma-separated; others' is ignored."
    )
    admission_interval_seconds: float = Field(
        default=1.0, gt=0, description="How often the replication slot is looked at."
    )
    admission_slot: str = Field(default="chat4all_outbox", description="The replication slot that is looked at.")
    admission_wal_bytes: int = Field(
        default=8 * 1024**3,
        ge=1,
        description="Room for held WAL where max_slot_wal_keep_size is -1 (PostgreSQL's own limit counts otherwise).",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="What is logged.")
    log_every_request: int = Field(
        default=0, ge=0, description="Log each n-th request with its status and duration; 0: none, 1: all."
    )
    otlp_endpoint: str = Field(
        default="",
        description="Address of a collector that takes spans by OTLP over HTTP, such as http://127.0.0.1:4318; empty:"
        " no traces.",
    )
    trace_ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Of the traces that begin at this API, so many are sampled; who brings a traceparent has decided.",
    )
    audit_head_file: Path | None = Field(
        default=None, description="File to which the signed head of the audit log is appended; none by default."
    )
    audit_head_seconds: float = Field(default=60.0, gt=0, description="How often it is, when it has changed.")
    shutdown_seconds: int = Field(
        default=10, ge=1, description="How long requests in flight may take when the process is told to end."
    )
    password_threads: int = Field(
        default=1, ge=1, le=8, description="Threads that hash passwords: a login storm waits for them alone."
    )
    password_queue_size: int = Field(
        default=64, ge=1, description="Logins and registrations that may wait for those threads; more are answered 503."
    )
    trusted_issuers: list[TrustedIssuer] = Field(
        default=[], description="Other issuers whose access tokens are accepted, as JSON (docs/operations.md)."
    )

    @model_validator(mode="after")
    def _has_issuers_once(self) -> Self:
        names = [self.issuer, *(trusted.issuer for trusted in self.trusted_issuers)]
        if len(set(names)) != len(names):
            raise ValueError("trusted_issuers: every issuer is named once, and this API is none of them")
        return self


def reference(*kinds: type[BaseSettings]) -> str:
    """The page that lists all settings (docs/settings.md)."""
    lines = [
        "# Settings of the ingest API",
        "",
        "Made from `ingest_api/settings.py` by `python -m ingest_api.settings > docs/settings.md`.",
    ]
    for kind in kinds:
        lines += ["", f"## {kind.__name__}", "", (kind.__doc__ or "").strip(), ""]
        lines += ["| variable | type | default | |", "|---|---|---|---|"]
        lines += [_row(name, field) for name, field in kind.model_fields.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    return f"| `CHAT4ALL_{name.upper()}` | {_type_name(name, field)} | {_default(field)} | {field.description} |"


def _type_name(name: str, field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    names: dict[Any, str] = {Path | None: "path", SecretStr: "secret", Path: "path", int: "integer", float: "number"}
    names |= {str: "text", bool: "boolean", Quota: "quota"}
    others = {"trusted_proxies": "networks", "trusted_issuers": "JSON"}
    return names[kind] if kind in names else others[name]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return f"`{value}`" if value not in ("", (), None) else "empty"


if __name__ == "__main__":
    print(reference(Settings, MigrationSettings), end="")
