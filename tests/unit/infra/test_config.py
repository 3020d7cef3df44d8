"""Where a stack lives, and what it remembers."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local.config import LONGEST_SOCKET_PATH, StackConfig, read_memory, write_memory
from infra.local.errors import StackError
from infra.local.ports import Ports


def test_a_checkout_s_stack_keeps_everything_in_the_checkout(tmp_path: Path) -> None:
    config = StackConfig.from_environment(tmp_path, {})

    assert config.state_dir == tmp_path / ".local" / "state"
    assert config.artifacts_dir == tmp_path / ".local" / "artifacts"


def test_variables_move_state_and_artifacts(tmp_path: Path) -> None:
    environ = {"CHAT4ALL_STATE_DIR": "/srv/state", "CHAT4ALL_ARTIFACTS_DIR": "/srv/jars"}

    config = StackConfig.from_environment(tmp_path, environ)

    assert (config.state_dir, config.artifacts_dir) == (Path("/srv/state"), Path("/srv/jars"))


def test_programs_inherit_our_variables_but_none_that_would_mislead_a_client(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "CHAT4ALL_WRITER_CONNECTIONS": "4", "PGPORT": "1", "HTTP_PROXY": "http://x"}

    config = StackConfig.from_environment(tmp_path, environ)

    assert config.environ == {"PATH": "/bin", "CHAT4ALL_WRITER_CONNECTIONS": "4"}


@pytest.mark.parametrize("name", ["a;b", "a#b", 'a"b', "a,b"])
def test_a_path_that_a_configuration_file_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StackError, match="use another"):
        StackConfig.from_environment(tmp_path / name, {})


def test_the_ports_of_a_start_are_remembered(tmp_path: Path) -> None:
    environ = {"CHAT4ALL_STATE_DIR": str(tmp_path)}
    ports = replace(Ports(), kafka=7001)

    write_memory(tmp_path, ports)

    assert StackConfig.from_environment(tmp_path, environ).ports == ports


def test_looking_at_a_stack_uses_the_ports_of_its_start_whatever_the_environment_says(tmp_path: Path) -> None:
    environ = {"CHAT4ALL_STATE_DIR": str(tmp_path), "CHAT4ALL_KAFKA_PORT": "7002"}
    write_memory(tmp_path, Ports())

    config = StackConfig.from_environment(tmp_path, environ)

    assert (config.ports.kafka, config.as_last_started().ports.kafka) == (7002, Ports().kafka)


def test_an_isolated_stack_shares_only_the_artifacts_and_keeps_its_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHAT4ALL_ARTIFACTS_DIR", raising=False)
    root, state = tmp_path / "root", tmp_path / "state"
    state.mkdir()
    first = StackConfig.isolated(root, state)
    write_memory(state, first.ports)

    assert first.artifacts_dir == root / ".local" / "artifacts"
    assert first.ports != Ports()
    assert StackConfig.isolated(root, state).ports == first.ports


def test_the_socket_s_path_is_short_however_deep_the_state_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)

    memory = write_memory(deep, Ports())

    assert len(str(memory.socket)) <= LONGEST_SOCKET_PATH
    assert stat.S_IMODE(memory.socket.parent.stat().st_mode) == 0o700
    assert write_memory(deep, Ports()).socket == memory.socket
    memory.socket.parent.rmdir()


def test_a_memory_that_cannot_be_read_is_told_and_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")

    with pytest.raises(StackError, match="`reset` starts over"):
        read_memory(tmp_path)
