"""Settings of the canary: environment variables CHAT4ALL_CANARY_<NAME>, read once where it is wired."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class CanarySettings(BaseSettings):
    """Where the system is, who writes, how often, and from when on a message is lost."""

    model_config = SettingsConfigDict(env_prefix="CHAT4ALL_", extra="ignore")

    canary_writes_url: str = Field(default="http://127.0.0.1:8000", description="Address of the ingest API.")
    canary_reads_url: str = Field(default="http://127.0.0.1:8001", description="Address of delivery.")
    canary_username: str = Field(
        default="canary", min_length=3, description="The canary's own user; registered at the first start."
    )
    canary_password: SecretStr = Field(min_length=12, description="That user's password.")
    canary_interval_seconds: float = Field(default=5.0, gt=0, description="How often each partition is written to.")
    canary_lost_seconds: float = Field(
        default=30.0, gt=0, description="An accepted message that has not come back for so long counts as lost."
    )
    metrics_port: int = Field(default=9106, ge=0, le=65535, description="Port of the canary's metrics.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of the canary's metrics.")
