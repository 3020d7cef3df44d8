"""Settings of delivery: environment variables CHAT4ALL_<NAME>, read once where the program is wired."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def parse_addresses(text: Any) -> Any:
    """`ingest-api=http://127.0.0.1:8000/readyz,audit=http://…` as a mapping. Raises ValueError."""
    if not isinstance(text, str):
        return text
    pairs = [each.strip().partition("=") for each in text.split(",") if each.strip()]
    if not all(name and address.startswith(("http://", "https://")) for name, _, address in pairs):
        raise ValueError("write name=http://address, with commas between several")
    return {name: address for name, _, address in pairs}


class Settings(BaseSettings):
    """Everything that delivery can be told."""

    model_config = SettingsConfigDict(env_prefix="CHAT4ALL_", extra="ignore")

    issuer: str = Field(default="http://127.0.0.1:8000", description="The `iss` that access tokens must have.")
    jwks_file: Path = Field(description="Public JWK set that verifies access tokens.")
    redis_host: str = Field(default="127.0.0.1", description="Redis' host.")
    redis_port: int = Field(default=6380, ge=1, le=65535, description="Redis' port.")
    redis_password: SecretStr = Field(default=SecretStr(""), description="Redis' password.")
    redis_timeout_seconds: float = Field(
        default=0.5, gt=0, description="How long Redis may take to answer before Postgres is asked instead."
    )
    redis_retry_seconds: float = Field(
        default=1.0, gt=0, description="How long Redis is left alone after it has not answered."
    )
    database_host: str = Field(default="127.0.0.1", description="PostgreSQL's host.")
    database_port: int = Field(default=5433, ge=1, le=65535, description="PostgreSQL's port.")
    database_name: str = Field(default="chat4all", description="The database.")
    database_user: str = Field(default="chat_reader", description="The role that this program logs in as.")
    database_password: SecretStr = Field(default=SecretStr(""), description="That role's password.")
    database_connections: int = Field(default=4, ge=1, le=64, description="Connections to Postgres at the most.")
    database_timeout_seconds: float = Field(default=2.0, gt=0, description="How long one query may take.")
    cursor_secret: SecretStr = Field(
        min_length=16,
        description="Seals the cursors of streams; the same for all delivery processes. With a new one, every client "
        "is told of a gap when it comes back.",
    )
    otlp_endpoint: str = Field(
        default="",
        description="Address of a collector that takes spans by OTLP over HTTP, such as http://127.0.0.1:4318; empty:"
        " no traces.",
    )
    allowed_origins: list[str] = Field(
        default=[],
        description="Origins of pages that may open a WebSocket, as a JSON list, besides that of the address that "
        'they call: ["https://chat.example"].',
    )
    stream_queue_events: int = Field(
        default=1000, ge=16, description="Events that may wait for one client; a client with more is disconnected."
    )
    stream_queue_bytes: int = Field(
        default=1_048_576, ge=65_536, description="Bytes that may wait for one client, likewise."
    )
    stream_comment_seconds: float = Field(
        default=15.0, gt=0, description="An idle stream carries a comment this often, so that proxies keep it open."
    )
    stream_proof_seconds: float = Field(
        default=5.0, gt=0, description="How long missing events are looked for before the client is told of a gap."
    )
    cursor_lifetime_seconds: int = Field(
        default=24 * 60 * 60, ge=60, description="How long the positions behind a stream's cursor are kept."
    )

    parts: Annotated[dict[str, str], NoDecode, BeforeValidator(parse_addresses)] = Field(
        default={},
        description="Health addresses of other parts: whoever is signed in is told whether these answer, under these "
        "names: ingest-api=http://127.0.0.1:8000/readyz,audit=http://127.0.0.1:9105/healthz.",
    )

    def connection_arguments(self) -> dict[str, Any]:
        """psycopg's connection parameters. Not for logs: the password is among them."""
        return {
            "host": self.database_host,
            "port": self.database_port,
            "dbname": self.database_name,
            "user": self.database_user,
            "password": self.database_password.get_secret_value(),
            "application_name": "chat4all delivery",
        }
