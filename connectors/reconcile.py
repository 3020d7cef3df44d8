"""What has to be done so that Connect holds what is declared. Pure: decides, does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.config_file import ConnectorFile, TargetState
from connectors.declared import Declaration
from connectors.model import MASK, Config, mask


@dataclass(frozen=True, slots=True)
class Held:
    """What Connect holds of one connector. `state` is what it was last told to do, whether it manages or not."""

    config: Config
    state: TargetState = TargetState.running


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

    def as_json(self) -> dict[str, str | None]:
        """The difference for programs; secrets are masked."""
        before = None if self.before is None else mask(self.key, self.before)
        after = None if self.after is None else mask(self.key, self.after)
        return {"key": self.key, "before": before, "after": after}

    def _shown(self, value: str | None) -> str:
        shown = mask(self.key, value or "")
        return shown if shown == MASK else repr(shown)


@dataclass(frozen=True, slots=True)
class Create:
    """Connect does not know the connector."""

    connector: ConnectorFile


@dataclass(frozen=True, slots=True)
class Update:
    """Connect knows the connector with other settings, or was told that it do something else. `changes` is sorted by
    key; `state_before` is None when the state is the declared one. One of the two is there."""

    connector: ConnectorFile
    changes: tuple[Change, ...]
    state_before: TargetState | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Connect already holds exactly this."""

    connector: ConnectorFile


@dataclass(frozen=True, slots=True)
class Undeclared:
    """Connect holds a connector that nobody declares. It is deleted only by who asks for it."""

    name: str


Plan = Create | Update | Unchanged | Undeclared


def name_of(plan: Plan) -> str:
    """The connector that a plan is about."""
    return plan.name if isinstance(plan, Undeclared) else plan.connector.name


def reconcile(desired: ConnectorFile, actual: Held | None) -> Plan:
    """The plan that makes actual equal desired; `actual` is None when Connect does not know the connector.
    Settings that only Connect holds are taken away, since the file is the whole truth."""
    if actual is None:
        return Create(desired)
    changes = differences(before=actual.config, after=desired.config)
    state_before = None if actual.state is desired.state else actual.state
    if not changes and state_before is None:
        return Unchanged(desired)
    return Update(desired, changes, state_before)


def reconcile_all(declaration: Declaration, actual: Mapping[str, Held]) -> tuple[Plan, ...]:
    """A plan per declared connector, sorted by name; then, when the declaration is whole, one for each other that
    Connect holds."""
    plans = [reconcile(connector, actual.get(connector.name)) for connector in declaration.connectors]
    declared = {connector.name for connector in declaration.connectors}
    others = sorted(actual.keys() - declared) if declaration.is_whole else []
    return (*plans, *map(Undeclared, others))


def differences(*, before: Config, after: Config) -> tuple[Change, ...]:
    """The settings that differ, sorted by key."""
    return tuple(
        Change(key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )
