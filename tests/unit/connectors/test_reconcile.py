"""What is done about connectors follows from what is declared and what Connect holds alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.config_file import ConnectorFile, TargetState
from connectors.declared import Declaration
from connectors.model import Config
from connectors.reconcile import (
    Change,
    Create,
    Held,
    Plan,
    Unchanged,
    Undeclared,
    Update,
    reconcile,
    reconcile_all,
)

CONFIGS = st.dictionaries(st.sampled_from(["a", "b", "c", "d.password"]), st.text(max_size=3))
STATES = st.sampled_from(TargetState)
HELD = st.builds(Held, CONFIGS, STATES)
NAMES = st.sampled_from(["one", "two", "three"])


def connector(config: Config, state: TargetState = TargetState.running, name: str = "c") -> ConnectorFile:
    return ConnectorFile(name, "k", config, state)


def carry_out(plan: Plan, actual: Held | None) -> Held | None:
    """What Connect holds after the plan: a write replaces everything."""
    match plan:
        case Create(desired) | Update(desired):
            return Held(desired.config, desired.state)
        case _:
            return actual


@settings(deadline=None)
@given(desired=st.builds(connector, CONFIGS, STATES), actual=st.none() | HELD)
def test_carrying_out_the_plan_makes_actual_desired_and_leaves_nothing_to_do(
    desired: ConnectorFile, actual: Held | None
) -> None:
    after = carry_out(reconcile(desired, actual), actual)
    assert after == Held(desired.config, desired.state)
    assert reconcile(desired, after) == Unchanged(desired)


@settings(deadline=None)
@given(desired=CONFIGS, actual=CONFIGS)
def test_the_changes_alone_lead_from_actual_to_desired(desired: Config, actual: Config) -> None:
    plan = reconcile(connector(desired), Held(actual))
    changed = dict(actual)
    for change in plan.changes if isinstance(plan, Update) else ():
        assert changed.pop(change.key, None) == change.before
        if change.after is not None:
            changed[change.key] = change.after
    assert changed == desired


@settings(deadline=None)
@given(declared=st.dictionaries(NAMES, CONFIGS), held=st.dictionaries(NAMES, HELD), is_whole=st.booleans())
def test_every_declared_connector_has_a_plan_and_every_other_only_when_the_declaration_is_whole(
    declared: dict[str, Config], held: dict[str, Held], is_whole: bool
) -> None:
    connectors = tuple(connector(config, name=name) for name, config in sorted(declared.items()))
    plans = reconcile_all(Declaration(connectors, is_whole), held)
    assert [p.connector.name for p in plans if not isinstance(p, Undeclared)] == sorted(declared)
    others = [p.name for p in plans if isinstance(p, Undeclared)]
    assert others == (sorted(held.keys() - declared.keys()) if is_whole else [])


def test_an_unknown_connector_is_created() -> None:
    assert reconcile(connector({"a": "1"}), None) == Create(connector({"a": "1"}))


def test_changes_are_told_key_by_key_in_order() -> None:
    plan = reconcile(connector({"same": "1", "new": "2", "other": "4"}), Held({"same": "1", "old": "0", "other": "3"}))
    assert isinstance(plan, Update)
    assert [change.describe() for change in plan.changes] == [
        "+ new = '2'",
        "- old (was '0')",
        "~ other: '3' -> '4'",
    ]


def test_a_connector_that_somebody_paused_differs_from_one_that_is_to_run() -> None:
    desired = connector({"a": "1"})
    assert reconcile(desired, Held({"a": "1"}, TargetState.paused)) == Update(desired, (), TargetState.paused)


@settings(deadline=None)
@given(before=st.none() | st.just("hunter2"), after=st.none() | st.just("hunter3"))
def test_a_secret_is_never_shown(before: str | None, after: str | None) -> None:
    for key in ("database.password", "ssl.Keystore.PASSWORD", "oauth.client.secret", "sasl.jaas.config"):
        change = Change(key, before, after)
        assert key in change.describe()
        assert "hunter" not in change.describe() + str(change.as_json())


def test_a_login_within_an_address_is_not_shown() -> None:
    change = Change("connection.url", "postgresql://u:hunter2@h/d", "jdbc:postgresql://h/d?user=u&password=hunter3")
    assert "hunter" not in change.describe()
