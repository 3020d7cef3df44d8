"""Settings of the ingest API: environment variables CHAT4ALL_<NAME>, read once where the program is wired."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest_api.security.external_issuers import TrustedIssuer


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
        default=32, ge=1, description="Commands that are worked on at once; the others wait, the newest first."
    )
    commands_waiting: int = Field(default=10_000, ge=0, description="Commands that may wait for their turn.")
    command_patience_seconds: float = Field(
        default=1.0, gt=0, description="How long a command waits for its turn before it is answered 503."
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
