"""The API's edges that need no server: size limit, problem documents, OpenAPI, signing keys."""

from __future__ import annotations

import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ingest_api.app import create_app
from ingest_api.settings import Settings
from ingest_api.signing_keys import make_signing_keys
from schemas.key_files import read_key_set


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """The application with nothing behind it: no server is asked by what is tested here."""
    app = create_app(Settings(signing_key_file=tmp_path / "absent.json"))
    app.state.chat = None
    return app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


async def test_a_body_over_64_kib_is_refused(http: httpx.AsyncClient) -> None:
    for content in (b"x" * 65_537, in_pieces(70_000)):
        answer = await http.post("/v1/users", content=content)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"].endswith(":body-too-large")


async def test_a_body_of_64_kib_is_read(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/users", content=b"x" * 65_536, headers={"content-type": "application/json"})
    assert answer.status_code == 422


async def test_every_error_is_a_problem_document(http: httpx.AsyncClient) -> None:
    for method, path, status in [("GET", "/nowhere", 404), ("PUT", "/v1/users", 405), ("POST", "/v1/users", 422)]:
        answer = await http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert answer.json()["type"].startswith("urn:chat4all:problem:")


async def test_a_malformed_field_is_named_and_its_value_is_not_repeated(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/users", json={"username": "alice", "password": "geheim"})
    assert [error["path"] for error in answer.json()["errors"]] == ["body.password"]
    assert "geheim" not in answer.text


async def test_alive_says_so_whatever_else_is_down(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "alive"}


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def test_openapi_gives_every_body_an_example_and_every_operation_a_summary(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    for method, path, operation in operations(app):
        assert operation["summary"], (method, path)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            reference = content["schema"].get("$ref", "").rpartition("/")[2]
            assert "example" in content or schemas[reference].get("examples"), (method, path)


PUBLIC = {
    ("post", "/v1/users"),
    ("post", "/oauth/token"),
    ("post", "/oauth/revoke"),
    ("get", "/.well-known/jwks.json"),
    ("get", "/.well-known/oauth-authorization-server"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


async def test_every_route_that_is_not_declared_public_asks_for_a_token(app: FastAPI) -> None:
    protected = [(method, path) for method, path, _ in operations(app) if (method, path) not in PUBLIC]
    assert protected
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        for method, path in protected:
            url = re.sub(r"{\w+}", "00000000-0000-4000-8000-000000000000", path)
            answer = await client.request(method, url, json={"body": {"type": "text", "text": "x"}})
            assert answer.status_code in {401, 422}, (method, path)
            valid = await client.request(
                method, url, json={} if path == "/v1/conversations" else {"body": {"type": "text", "text": "x"}}
            )
            assert valid.status_code == 401, (method, path)
            assert valid.headers["www-authenticate"].startswith("Bearer")


def test_signing_keys_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    private, public = tmp_path / "private.json", tmp_path / "public.json"
    assert make_signing_keys(private, public)
    made = private.read_text()
    assert not make_signing_keys(private, public)
    assert private.read_text() == made
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert '"d"' in made
    assert '"d"' not in public.read_text()
    assert read_key_set(private).keys[0].kid == read_key_set(public).keys[0].kid
