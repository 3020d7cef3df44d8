"""Routes of the gateway, made from OpenAPI documents."""

from __future__ import annotations

from typing import Any

import pytest

from infra.caddy.routes import Operation, operations_of, pattern_of, render
from infra.local.plan import stop_waves
from infra.local.programs import PROGRAMS, STEPS


def test_a_parameter_is_one_segment_wherever_it_stands() -> None:
    assert pattern_of("/v1/things/{thing_id}/parts/{part_id}") == "/v1/things/*[^/]/parts/*[^/]"


def test_operators_addresses_are_no_routes() -> None:
    both: dict[str, Any] = {"get": {}, "post": {}}
    document = {"paths": {"/metrics": {"get": {}}, "/healthz": {"get": {}}, "/v1/things": both}}

    assert operations_of("delivery", document) == [
        Operation("delivery", "GET", "/v1/things"),
        Operation("delivery", "POST", "/v1/things"),
    ]


def test_one_path_may_be_shared_by_methods_and_other_methods_are_told_both() -> None:
    text = render([Operation("ingest_api", "POST", "/v1/things"), Operation("delivery", "GET", "/v1/things")])

    assert "@ingest_api_post {\n\tmethod POST\n\tpath /v1/things\n}\nhandle @ingest_api_post {" in text
    assert "@only_get_post {\n\tpath /v1/things\n}" in text
    assert 'header Allow "GET, POST"' in text


def test_a_request_that_two_programs_answer_is_refused() -> None:
    twice = [Operation("ingest_api", "GET", "/v1/things/{a}"), Operation("delivery", "GET", "/v1/things/{b}")]

    with pytest.raises(ValueError, match=r"GET /v1/things/\{b\} is described twice"):
        render(twice)


def test_the_gateway_stops_beside_delivery_so_that_goodbyes_pass_through_it() -> None:
    waves = stop_waves({p.name: p.needs for p in PROGRAMS}, {step.name: step.needs for step in STEPS})

    assert any({"gateway", "delivery", "ingest-api"} <= set(wave) for wave in waves)
