"""Settings of audit: environment variables CHAT4ALL_AUDIT_<NAME>, besides those that all stream apps share."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from stream_apps.settings import StreamSettings


class AuditSettings(StreamSettings):
    """How often audit looks, how long it takes something for a matter of time, how fast it has tables rebuilt."""

    model_config = SettingsConfigDict(env_prefix="CHAT4ALL_", extra="ignore")

    metrics_port: int = Field(default=9105, ge=0, le=65535, description="Port of audit's metrics.")
    audit_look_seconds: float = Field(default=2.0, gt=0, description="How often audit looks.")
    audit_settle_seconds: float = Field(default=3.0, ge=0, description="Entries younger than this are not looked for.")
    audit_confirm_seconds: float = Field(
        default=3.0, ge=0, description="How long a fault has to last before it counts and is repaired."
    )
    audit_late_seconds: float = Field(
        default=20.0, ge=0, description="The same for entries that the tables do not have yet."
    )
    audit_kafka_late_seconds: float = Field(
        default=300.0, ge=0, description="The same for entries that Kafka does not have yet."
    )
    audit_phantom_seconds: float = Field(
        default=60.0, ge=0, description="The same for what Postgres does not show (yet)."
    )
    audit_look_entries: int = Field(
        default=20_000, ge=1, description="Entries that one look compares at the most; the rest waits for the next one."
    )
    audit_lately_seconds: float = Field(
        default=3600.0, gt=0, description="What was touched since then is rebuilt before the rest."
    )
    audit_heal_rate: float = Field(
        default=10_000.0, ge=0, description="Entries per second at which lost tables are rebuilt; 0 is no limit."
    )
