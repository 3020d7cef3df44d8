"""A connector file is read as Connect would store it, or refused with a sentence that says what is wrong where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.config_file import UnusableFile, read_connector_file


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
        (b"\xff\xfe", "not JSON in UTF-8"),
        ("[" * 100_000, "not JSON"),
        ('{"name": "c", "config": {"a": "1", "a": "2"}}', 'says "a" twice'),
        ("[]", 'an object with exactly "name" and "config"'),
        ('{"name": "c"}', 'an object with exactly "name" and "config"'),
        ('{"name": "c", "config": {}, "x": 1}', 'an object with exactly "name" and "config"'),
        ('{"name": " ", "config": {}}', '"name" must be a text'),
        ('{"name": "c", "config": []}', '"config" must be an object'),
        ('{"name": "c", "config": {"a": null}}', 'the setting "a" must be'),
        ('{"name": "c", "config": {"a": {"b": 1}}}', 'the setting "a" must be'),
        ('{"name": "c", "config": {"name": "d"}}', 'the name within "config" is not "c"'),
        ('{"name": "c", "config": {"a": "1"}}', "connector.class"),
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
