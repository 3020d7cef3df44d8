"""The setting by which the outbox event router passes over operations that are no events. Pure.

An UPDATE of an outbox row stops a connector whose router is told `fatal`, and would stop it again after every restart.
No accepted message is in such an operation (each is an INSERT), so it may be logged and passed over, for as long as it
takes to get past it."""

from __future__ import annotations

from connectors.model import Config

EVENT_ROUTER = "io.debezium.transforms.outbox.EventRouter"
PASSING_OVER = "error"  # logged as an error by Connect, and passed over


def behavior_key(config: Config) -> str | None:
    """The setting, or None if there is no event router."""
    names = [name.strip() for name in config.get("transforms", "").split(",")]
    router = next((name for name in names if config.get(f"transforms.{name}.type") == EVENT_ROUTER), None)
    return f"transforms.{router}.table.op.invalid.behavior" if router else None


def is_passing_over(held: Config, declared: Config) -> bool:
    """Whether the connector passes over what it is declared to stop at."""
    key = behavior_key(declared)
    return key is not None and held.get(key) == PASSING_OVER != declared.get(key)


def passing_over(held: Config) -> Config | None:
    """The same settings, passing over; None if there is no event router."""
    key = behavior_key(held)
    return None if key is None else {**held, key: PASSING_OVER}


def restored(held: Config, declared: Config) -> Config:
    """The held settings with the declared behavior; whatever else differs is not ours to change."""
    key = behavior_key(declared)
    settings = {k: v for k, v in held.items() if k != key}
    return settings | ({key: declared[key]} if key and key in declared else {})
