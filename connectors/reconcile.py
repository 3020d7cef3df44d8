"""What has to be done so that Connect holds the desired settings. Pure: decides, does nothing."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.model import MASK, Config, is_secret_key


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that differs. None means that the side does not have it."""

    key: str
    before: str | None
    after: str | None

    def describe(self) -> str:
        """The difference in one line; secrets are masked."""
        if self.before is None:
            return f"+ {self.key} = {self._shown(self.after)}"
        if self.after is None:
            return f"- {self.key} (was {self._shown(self.before)})"
        return f"~ {self.key}: {self._shown(self.before)} -> {self._shown(self.after)}"

    def _shown(self, value: str | None) -> str:
        return MASK if is_secret_key(self.key) else repr(value)


@dataclass(frozen=True, slots=True)
class Create:
    """Connect does not know the connector."""

    config: Config


@dataclass(frozen=True, slots=True)
class Update:
    """Connect knows the connector with other settings. `changes` is sorted by key and never empty."""

    config: Config
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Connect already holds exactly these settings."""


Plan = Create | Update | Unchanged


def reconcile(desired: Config, actual: Config | None) -> Plan:
    """The plan that makes actual equal desired; `actual` is None when Connect does not know the connector.
    Settings that only Connect holds are taken away, since the file is the whole truth."""
    if actual is None:
        return Create(desired)
    changes = tuple(
        Change(key, actual.get(key), desired.get(key))
        for key in sorted(desired.keys() | actual.keys())
        if desired.get(key) != actual.get(key)
    )
    return Update(desired, changes) if changes else Unchanged()
