"""What a start takes and in which order things stop."""

from __future__ import annotations

import pytest

from infra.local.errors import StackError
from infra.local.plan import choose, stop_waves
from infra.local.programs import PROGRAMS, STEPS

PROGRAM_NEEDS = {program.name: program.needs for program in PROGRAMS}
STEP_NEEDS = {step.name: step.needs for step in STEPS}


def test_without_a_choice_everything_starts() -> None:
    assert choose(PROGRAM_NEEDS, STEP_NEEDS, None) == {*PROGRAM_NEEDS, *STEP_NEEDS}


def test_servers_alone_start_without_any_step() -> None:
    only = ["postgres", "redis", "kafka", "connect"]

    assert choose(PROGRAM_NEEDS, STEP_NEEDS, only) == set(only)


def test_a_chosen_program_brings_what_it_needs() -> None:
    assert choose(PROGRAM_NEEDS, STEP_NEEDS, ["ingest-api"]) == {
        "ingest-api",
        "migrations",
        "signing-keys",
        "postgres",
    }


def test_the_connector_is_applied_once_everything_it_needs_is_there() -> None:
    assert "connector" in choose(PROGRAM_NEEDS, STEP_NEEDS, ["timeline", "connect"])
    assert "connector" not in choose(PROGRAM_NEEDS, STEP_NEEDS, ["timeline"])


def test_an_unknown_program_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StackError, match=r"no program mysql; there are postgres, redis"):
        choose(PROGRAM_NEEDS, STEP_NEEDS, ["postgres", "mysql"])


def test_everything_that_is_needed_exists() -> None:
    names = {*PROGRAM_NEEDS, *STEP_NEEDS}

    assert all(names.issuperset(needs) for needs in [*PROGRAM_NEEDS.values(), *STEP_NEEDS.values()])


def test_programs_stop_before_what_they_need() -> None:
    waves = stop_waves(PROGRAM_NEEDS, STEP_NEEDS)
    position = {name: number for number, wave in enumerate(waves) for name in wave}

    assert set(position) == set(PROGRAM_NEEDS)
    assert position["ingest-api"] < position["postgres"]
    assert position["timeline"] < position["kafka"]
    assert position["delivery"] < position["redis"]
    assert position["connect"] < position["kafka"]
