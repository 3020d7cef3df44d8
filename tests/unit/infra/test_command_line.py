"""The command line of the embedded stack, as far as it decides without one."""

from __future__ import annotations

import pytest

from infra.local.__main__ import _parser
from infra.local.programs import PROGRAMS, TOOLS


@pytest.mark.parametrize("name", [*(program.name for program in PROGRAMS), *TOOLS])
def test_a_command_can_be_run_with_the_settings_of_each_program_and_tool(name: str) -> None:
    assert _parser().parse_args(["exec", name, "true"]).program == name
