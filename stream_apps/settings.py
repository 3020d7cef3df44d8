"""Settings that the Faust apps share: environment variables CHAT4ALL_<NAME>, read once where an app is wired."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class StreamSettings(BaseSettings):
    """Where Kafka, Redis and PostgreSQL are, and how a stream app behaves when they are not."""

    model_config = SettingsConfigDict(env_prefix="CHAT4ALL_", extra="ignore")

    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka's bootstrap servers, comma-separated.")
    redis_host: str = Field(default="127.0.0.1", description="Redis' host.")
    redis_port: int = Field(default=6380, ge=1, le=65535, description="Redis' port.")
    redis_database: int = Field(default=0, ge=0, description="Number of Redis' database.")
    redis_password: SecretStr = Field(default=SecretStr(""), description="Redis' password.")
    database_host: str = Field(default="127.0.0.1", description="PostgreSQL's host.")
    database_port: int = Field(default=5433, ge=1, le=65535, description="PostgreSQL's port.")
    database_name: str = Field(default="chat4all", description="The database.")
    database_user: str = Field(default="chat_reader", description="The role that this program logs in as.")
    database_password: SecretStr = Field(default=SecretStr(""), description="That role's password.")
    metrics_port: int = Field(default=9101, ge=0, le=65535, description="Port of the app's metrics.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of the app's metrics.")
    otlp_endpoint: str = Field(
        default="",
        description="Address of a collector that takes spans by OTLP over HTTP, such as http://127.0.0.1:4318; empty:"
        " no traces.",
    )
    group_instance_id: str = Field(
        default="",
        max_length=249,
        description="A name for this worker that it keeps when it starts again, and that no other worker of the app has"
        " (Kafka's group.instance.id): it then gets its partitions back without a rebalance. Empty: none.",
    )
    dead_letter_limit: int = Field(
        default=100,
        ge=1,
        description="Of how many conversations records may become dead letters within an hour before an app stops:"
        " something is wrong with the stream.",
    )
    park_seconds: float = Field(
        default=10.0,
        ge=0,
        description="How long a conversation whose records cannot be applied is tried again before these become dead"
        " letters. The others go on meanwhile.",
    )
    watchdog_seconds: float = Field(
        default=30.0,
        gt=0,
        description="How long records may wait without one being applied before the app ends itself.",
    )

    def database_arguments(self) -> dict[str, Any]:
        """psycopg's connection parameters. Not for logs: the password is among them."""
        return {
            "host": self.database_host,
            "port": self.database_port,
            "dbname": self.database_name,
            "user": self.database_user,
            "password": self.database_password.get_secret_value(),
            "connect_timeout": 5,
        }
