"""What an answer says of a part, and how parts are named to delivery."""

from __future__ import annotations

import json

import pytest

from stream_apps.delivery.parts import is_running
from stream_apps.delivery.settings import parse_addresses


@pytest.mark.parametrize(
    ("connector", "tasks", "expected"),
    [
        ("RUNNING", ["RUNNING"], True),
        ("RUNNING", ["RUNNING", "FAILED"], False),
        ("RUNNING", [], False),
        ("FAILED", ["RUNNING"], False),
        ("PAUSED", ["PAUSED"], False),
    ],
)
def test_a_connector_runs_when_it_and_its_tasks_do(connector: str, tasks: list[str], expected: bool) -> None:
    status = {"name": "c", "connector": {"state": connector}, "tasks": [{"id": 0, "state": state} for state in tasks]}
    assert is_running(json.dumps(status).encode()) is expected


@pytest.mark.parametrize("body", [b"", b"ok", b"[]", b"null", b'{"status": "ready"}', b'{"connector": 1, "tasks": 2}'])
def test_any_other_answer_says_no_more_than_that_it_came(body: bytes) -> None:
    assert is_running(body)


def test_addresses_are_named_and_separated_by_commas() -> None:
    assert parse_addresses("a=http://h:1/x?y=z, b=https://h/") == {"a": "http://h:1/x?y=z", "b": "https://h/"}
    assert parse_addresses("") == {}


@pytest.mark.parametrize("text", ["a", "=http://h", "a=ftp://h", "http://h:1/", "a=http://h,b"])
def test_what_is_no_named_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name=http://address"):
        parse_addresses(text)
