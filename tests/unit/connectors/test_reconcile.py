"""What is done about a connector follows from the desired and the actual settings alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.model import Config
from connectors.reconcile import Change, Create, Plan, Unchanged, Update, reconcile

CONFIGS = st.dictionaries(st.sampled_from(["a", "b", "c", "d.password"]), st.text(max_size=3))


def carry_out(plan: Plan, actual: Config | None) -> Config | None:
    """What Connect holds after the plan: both kinds of write replace everything."""
    return actual if isinstance(plan, Unchanged) else plan.config


@given(desired=CONFIGS, actual=st.none() | CONFIGS)
def test_carrying_out_the_plan_makes_actual_desired_and_leaves_nothing_to_do(
    desired: Config, actual: Config | None
) -> None:
    after = carry_out(reconcile(desired, actual), actual)
    assert after == desired
    assert reconcile(desired, after) == Unchanged()


@given(desired=CONFIGS, actual=CONFIGS)
def test_the_changes_alone_lead_from_actual_to_desired(desired: Config, actual: Config) -> None:
    plan = reconcile(desired, actual)
    changed = dict(actual)
    for change in plan.changes if isinstance(plan, Update) else ():
        assert changed.pop(change.key, None) == change.before
        if change.after is not None:
            changed[change.key] = change.after
    assert changed == desired


def test_an_unknown_connector_is_created() -> None:
    assert reconcile({"a": "1"}, None) == Create({"a": "1"})


def test_changes_are_told_key_by_key_in_order() -> None:
    plan = reconcile({"same": "1", "new": "2", "other": "4"}, {"same": "1", "old": "0", "other": "3"})
    assert isinstance(plan, Update)
    assert [change.describe() for change in plan.changes] == [
        "+ new = '2'",
        "- old (was '0')",
        "~ other: '3' -> '4'",
    ]


@given(before=st.none() | st.just("hunter2"), after=st.none() | st.just("hunter3"))
def test_a_secret_is_never_shown(before: str | None, after: str | None) -> None:
    for key in ("database.password", "ssl.Keystore.PASSWORD", "oauth.client.secret", "sasl.jaas.config"):
        described = Change(key, before, after).describe()
        assert key in described
        assert "hunter" not in described
