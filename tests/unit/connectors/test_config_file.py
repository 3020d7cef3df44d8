"""A connector file is read as Connect would store it, or refused with a sentence that says what is wrong where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.config_file import TargetState, read_connector_file
from connectors.documents import UnusableFile


def test_settings_become_text_and_the_name_is_among_them(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"name": "c", "config": {"connector.class": "k", "n": 1, "b": True, "f": False}}))
    file = read_connector_file(path)
    assert (file.name, file.connector_class) == ("c", "k")
    assert file.config == {"name": "c", "connector.class": "k", "n": "1", "b": "true", "f": "false"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"name": "c",\n "config": {"a" 1}}', r"is not JSON: .* at line 2, column 17\."),
        ("", r"is not JSON: .* at line 1, column 1\."),
        ('{"name": NaN}', "NaN is not a JSON number"),
        (b"\xff\xfe", "is not text in UTF-8"),
        ("[" * 100_000, "not JSON"),
        ('{"name": "c", "config": {"a": "1", "a": "2"}}', 'says "a" twice'),
        ("[]", 'an object with "name" and "config"'),
        ('{"name": "c"}', 'an object with "name" and "config"'),
        ('{"name": "c", "config": {}, "x": 1}', 'an object with "name" and "config"'),
        ('{"name": " ", "config": {}}', '"name" must be a text'),
        ('{"name": "c", "config": []}', '"config" must be an object'),
        ('{"name": "c", "config": {"a": null}}', 'the setting "a" must be'),
        ('{"name": "c", "config": {"a": {"b": 1}}}', 'the setting "a" must be'),
        ('{"name": "c", "config": {"name": "d"}}', 'the name within "config" is not "c"'),
        ('{"name": "c", "config": {"a": "1"}}', "connector.class"),
        ('{"name": "c", "config": {"connector.class": "k"}, "state": "on"}', "one of running, paused, stopped"),
        ('{"name": "a b", "config": {"connector.class": "k"}}', "name: must be 1 to 100 letters"),
        ('{"name": "c", "config": {"connector.class": "k", "tasks.max": "many"}}', "tasks.max: must be a whole number"),
        ('{"name": "c", "config": {"connector.class": "k", "x.password": "p"}}', "x.password: holds a secret"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_sentence(
    tmp_path: Path, content: str | bytes, sentence: str
) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnusableFile, match=sentence):
        read_connector_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"missing\.json cannot be read: No such file"):
        read_connector_file(tmp_path / "missing.json")


def test_a_folder_is_no_connector_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="cannot be read"):
        read_connector_file(tmp_path)


def test_yaml_is_read_as_the_text_that_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: c\nstate: stopped\nconfig:\n  connector.class: k\n  a: 010\n  b: on\n  c: 1e3\n  d: ''\n")
    file = read_connector_file(path)
    assert file.state is TargetState.stopped
    assert {key: file.config[key] for key in "abcd"} == {"a": "010", "b": "on", "c": "1e3", "d": ""}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("name: [", r"is not YAML: .* at line 1, column 8\."),
        ("name: c\nname: d\n", 'says "name" twice'),
        ("? [a]\n: b\n", "a key must be a text"),
        ("~: b\n", "a key must be a text"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("a: &x [*x]\n", "is not YAML"),
        ("name: c\nconfig: {connector.class: k, a: null}\n", 'the setting "a" must be'),
        ("", 'an object with "name" and "config"'),
    ],
)
def test_yaml_that_cannot_be_used_is_refused_with_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(UnusableFile, match=sentence):
        read_connector_file(path)


def test_a_value_that_is_refused_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"name": "c", "config": {"connector.class": "k", "a.token": "hunter2"}}))
    with pytest.raises(UnusableFile) as refused:
        read_connector_file(path)
    assert "hunter2" not in str(refused.value)
