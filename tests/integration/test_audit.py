"""The audit log on a real PostgreSQL: what goes into it, that nobody changes it, and that every change is found."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from joserfc.jwk import ECKey
from prometheus_client import CollectorRegistry

from ingest_api.audit.heads import Head, SignedHeads, append_line, sign_head
from ingest_api.audit.trail import REFUSALS_RECORDED, AuditTrail
from ingest_api.audit.verifier import Report, verify_log
from ingest_api.group_commit import Limits
from ingest_api.oauth_clients import create_client, delete_client
from ingest_api.security.events import SecurityEvent
from ingest_api.signing_keys import KeyFiles, rotate_signing_keys
from schemas.key_files import read_key_set
from schemas.problems import ProblemError
from tests.integration.desk import Desk, connect_to, open_desk
from tests.integration.servers import Server, login, owner_engine, start_postgres

LIMITS = Limits(connections=1, batch_size=64, queue_size=5000, timeout_seconds=10.0)
KEY = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": "ES256"}, auto_kid=True)
TAMPERING = {
    "a flipped bit in what is said": ("UPDATE audit_log SET detail = replace(detail, 'n', 'm') WHERE position = 5", 5),
    "another actor": ("UPDATE audit_log SET actor_id = 'somebody' WHERE position = 5", 5),
    "another action": ("UPDATE audit_log SET action = 'login.succeeded' WHERE position = 5", 5),
    "another time": ("UPDATE audit_log SET occurred_at = occurred_at - interval '1 us' WHERE position = 5", 5),
    "a flipped bit in a hash": (
        "UPDATE audit_log SET entry_hash = set_byte(entry_hash, 3, get_byte(entry_hash, 3) # 1) WHERE position = 5",
        5,
    ),
    "a change whose hash was computed anew": (
        "UPDATE audit_log SET detail = '{}', entry_hash = audit_entry_hash("
        "position, occurred_at, action, actor_id, '{}', previous_hash) WHERE position = 5",
        6,
    ),
    "a removed row": ("DELETE FROM audit_log WHERE position = 5", 6),
    "the first row removed": ("DELETE FROM audit_log WHERE position = 1", 2),
    "a row inserted, the others moved up": (
        "UPDATE audit_log SET position = -position - 1 WHERE position > 5;"
        "UPDATE audit_log SET position = -position WHERE position < 0;"
        "INSERT INTO audit_log SELECT 6, occurred_at, 'made.up', NULL, '{}', entry_hash, audit_entry_hash("
        "6, occurred_at, 'made.up', NULL, '{}', entry_hash) FROM audit_log WHERE position = 5",
        7,
    ),
    "two rows that changed places": (
        "UPDATE audit_log SET position = -position WHERE position IN (5, 6);"
        "UPDATE audit_log SET position = 11 + position WHERE position < 0",
        5,
    ),
    "a truncated tail": ("DELETE FROM audit_log WHERE position > 8", 10),
    "a truncated tail and its head": (
        "DELETE FROM audit_log WHERE position > 8;"
        "UPDATE audit_head SET (position, entry_hash) ="
        " (SELECT position, entry_hash FROM audit_log WHERE position = 8)",
        10,
    ),
    "a log made anew": (
        "CREATE TEMP TABLE old AS SELECT * FROM audit_log ORDER BY position; DELETE FROM audit_log;"
        "UPDATE audit_head SET position = 0, entry_hash = decode(repeat('00', 32), 'hex');"
        "SELECT record_audit_events(array_agg(action ORDER BY position), array_agg(actor_id ORDER BY position),"
        " array_agg('{}'::text ORDER BY position)) FROM old",
        10,
    ),
    "the head's row removed": ("DELETE FROM audit_head", 10),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_postgres() as own:
        yield own


@pytest.fixture
async def desk(server: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(server, tmp_path) as own:
        yield own


@pytest.fixture
def owner(server: Server) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(**login(server), autocommit=True) as connection:
        yield connection


@pytest.fixture
def ten_entries(owner: psycopg.Connection[tuple[Any, ...]]) -> Iterator[SignedHeads]:
    """A log of ten entries and its signed head; afterwards it is as empty as before."""
    empty(owner)
    for number in range(10):
        owner.execute(
            "SELECT record_audit_events(%s, %s, %s)",
            (["login.failed"], [f"user-{number}"], [json.dumps({"client_id": "chat4all", "n": number})]),
        )
    row = owner.execute("SELECT position, entry_hash FROM audit_head").fetchone()
    assert row is not None
    yield SignedHeads([sign_head(Head(*row), KEY, now=0)], {str(KEY.kid): KEY}.get)
    empty(owner)


def empty(owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    with owner.transaction():
        owner.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
        owner.execute("DELETE FROM audit_log")
        owner.execute("ALTER TABLE audit_log ENABLE TRIGGER ALL")
        owner.execute("DELETE FROM audit_head")
        owner.execute("INSERT INTO audit_head (position, entry_hash) VALUES (0, decode(repeat('00', 32), 'hex'))")


def tamper(owner: psycopg.Connection[tuple[Any, ...]], statements: str) -> None:
    """What only somebody with the database's owner's rights could do."""
    with owner.transaction():
        owner.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
        owner.execute(statements.encode())
        owner.execute("ALTER TABLE audit_log ENABLE TRIGGER ALL")


def test_an_untouched_log_has_no_fault(owner: psycopg.Connection[tuple[Any, ...]], ten_entries: SignedHeads) -> None:
    assert verify_log(owner, ten_entries) == Report(entries=10, position=10, heads=1)


@pytest.mark.parametrize("what", TAMPERING)
def test_every_kind_of_tampering_is_found_where_it_is(
    owner: psycopg.Connection[tuple[Any, ...]], ten_entries: SignedHeads, what: str
) -> None:
    statements, position = TAMPERING[what]
    tamper(owner, statements)
    faults = verify_log(owner, ten_entries).faults
    assert faults, what
    assert faults[0].position == position, faults


def test_python_and_postgresql_agree_on_the_encoding(owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    empty(owner)
    actions, actors = ["a", "Grüße", "3:x,"], [None, "zoë 🙂", "1:,"]
    details = ['{"a": "\\u0000"}', "{}", "," * 1000]
    owner.execute("SELECT record_audit_events(%s, %s, %s)", (actions, actors, details))
    assert verify_log(owner, None) == Report(entries=3, position=3)
    empty(owner)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET action = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log VALUES (1, now(), 'x', NULL, '{}', '', '')",
        "UPDATE audit_head SET position = 0",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "SET ROLE chat_audit",
    ],
)
def test_the_apis_role_can_only_call_the_function(server: Server, statement: str) -> None:
    with psycopg.connect(**login(server, "chat_api")) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
        connection.rollback()
        connection.execute("SELECT record_audit_events('{x}', '{NULL}', '{\"{}\"}')")
        connection.rollback()


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET action = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
def test_the_trigger_refuses_the_owner_too(owner: psycopg.Connection[tuple[Any, ...]], statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(statement.encode())


async def test_three_processes_write_one_chain(server: Server, owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    empty(owner)
    connect = connect_to(server)
    trails = [AuditTrail(connect, LIMITS, CollectorRegistry()) for _ in range(3)]
    for trail in trails:
        trail.writer.start()
    events = [SecurityEvent("login.failed", None, {"number": str(number)}) for number in range(300)]
    await asyncio.gather(*(trails[number % 3].record(event) for number, event in enumerate(events)))
    for trail in trails:
        await trail.writer.close()
    assert verify_log(owner, None) == Report(entries=300, position=300)
    kept = owner.execute("SELECT detail FROM audit_log").fetchall()
    assert {json.loads(row[0])["number"] for row in kept} == {str(number) for number in range(300)}


async def test_what_cannot_be_recorded_is_refused_and_refusals_are_counted(server: Server) -> None:
    async def nowhere() -> psycopg.AsyncConnection[Any]:
        raise psycopg.OperationalError("no database")

    registry = CollectorRegistry()
    trail = AuditTrail(nowhere, LIMITS, registry)
    trail.writer.start()
    with pytest.raises(ProblemError):
        await trail.record(SecurityEvent("login.succeeded", "x"))
    trail.note(SecurityEvent("request.refused"))
    await trail.finish_notes()
    await trail.writer.close()
    assert registry.get_sample_value("ingest_api_audit_dropped_total") == 1


async def test_a_flood_of_refusals_is_cut_to_its_budget_and_the_rest_is_counted(
    server: Server, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    empty(owner)
    now = 0.0
    trail = AuditTrail(connect_to(server), LIMITS, CollectorRegistry(), clock=lambda: now)
    trail.writer.start()
    for _ in range(REFUSALS_RECORDED.hits + 50):
        trail.note(SecurityEvent("request.refused"))
    await trail.finish_notes()
    await trail.writer.close()
    counts = dict(owner.execute("SELECT action, count(*) FROM audit_log GROUP BY action").fetchall())
    dropped = owner.execute("SELECT detail FROM audit_log WHERE action = 'audit.dropped'").fetchone()
    assert counts == {"request.refused": REFUSALS_RECORDED.hits, "audit.dropped": 1}
    assert dropped is not None
    assert json.loads(dropped[0]) == {"refusals": "50"}


async def test_what_happens_in_the_api_is_in_the_log(desk: Desk, owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    start = position(owner)
    registered = (await desk.http.post("/v1/users", json={"username": f"zoe-{start}", "password": "a long one"})).json()
    form = {"grant_type": "password", "username": f"zoe-{start}", "password": "a long one"}
    token = (await desk.http.post("/oauth/token", data=form, headers={"x-request-id": "one-login"})).json()
    await desk.http.post("/oauth/token", data={**form, "password": "wrong"})
    await desk.http.post("/oauth/token", data={"grant_type": "refresh_token", "refresh_token": token["refresh_token"]})
    await desk.http.post("/oauth/token", data={"grant_type": "refresh_token", "refresh_token": token["refresh_token"]})
    alice, bob = await desk.register(), await desk.register()
    conversation_id = await desk.create_conversation(alice, bob)
    path = f"/v1/conversations/{conversation_id}"
    message_id = await desk.send(alice, conversation_id)
    assert (await desk.ask(bob, "DELETE", f"{path}/messages/{message_id}")).status_code == 403
    await desk.notes_are_written()
    for _ in range(2):  # the second one changes nothing
        await desk.ask(alice, "DELETE", f"{path}/messages/{message_id}")
        await desk.ask(alice, "POST", f"{path}/participants", {"user_id": registered["user_id"]})
        await desk.ask(bob, "DELETE", f"{path}/participants/{bob.user_id}")
    await desk.http.get("/v1/users/me")
    await desk.notes_are_written()
    assert read(owner, start) == [
        ("user.created", registered["user_id"]),
        ("login.succeeded", registered["user_id"]),
        ("login.failed", registered["user_id"]),
        ("token.refreshed", registered["user_id"]),
        ("token.reuse_detected", registered["user_id"]),
        ("conversation.created", alice.user_id),
        ("request.refused", bob.user_id),
        ("message.deleted", alice.user_id),
        ("participant.joined", alice.user_id),
        ("participant.left", bob.user_id),
        ("request.refused", None),
    ]
    logged_in = owner.execute(
        "SELECT detail FROM audit_log WHERE action = 'login.succeeded' ORDER BY position DESC LIMIT 1"
    ).fetchone()
    assert logged_in is not None
    assert json.loads(logged_in[0]) == {"client_id": "chat4all", "request_id": "one-login", "address": "127.0.0.1"}
    assert not verify_log(owner, None).faults


async def test_keys_and_clients_are_in_the_log(desk: Desk, owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    start = position(owner)
    engine = owner_engine(desk.server)
    create_client(engine, f"auditor-{start}", "an auditor", ["audit:read"])
    delete_client(engine, f"auditor-{start}")
    engine.dispose()
    private = desk.settings.signing_key_file
    kid = rotate_signing_keys(KeyFiles(private, private.with_name("public.json")), now=0)
    form = {"grant_type": "password", "username": "nobody", "password": "wrong wrong"}
    await desk.http.post("/oauth/token", data=form)
    desk.app.state.chat.keys.refresh()
    await desk.notes_are_written()
    recorded = read(owner, start)
    assert {"client.created", "client.deleted", "keys.changed"} <= {action for action, _ in recorded}
    changed = owner.execute("SELECT detail FROM audit_log WHERE action = 'keys.changed'").fetchall()
    assert kid in json.loads(changed[-1][0])["keys"].split()


async def test_the_log_is_read_page_by_page_by_auditors_alone(
    desk: Desk, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    user = await desk.register()
    assert (await desk.ask(user, "GET", "/v1/audit")).status_code == 403
    assert (await desk.http.get("/v1/audit")).status_code == 401
    auditor = desk.client("auditor", "audit:read")
    await desk.create_conversation(user)
    await desk.notes_are_written()
    positions, after = [], 0
    while True:
        page = (await desk.ask(auditor, "GET", f"/v1/audit?after={after}&limit=3")).json()
        positions += [entry["position"] for entry in page["entries"]]
        if page["next_after"] is None:
            break
        after = page["next_after"]
    assert positions == list(range(1, position(owner) + 1))
    created = (await desk.ask(auditor, "GET", "/v1/audit?action=conversation.created&limit=1000")).json()["entries"]
    assert created[-1]["actor_id"] == user.user_id
    assert created[-1]["detail"].keys() == {"conversation_id"}
    assert (await desk.ask(auditor, "GET", "/v1/audit?limit=0")).status_code == 422
    assert (await desk.ask(auditor, "GET", "/v1/users/me")).status_code == 403


def test_the_command_verifies_and_exports(server: Server, ten_entries: SignedHeads, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CHAT4ALL_DATABASE_PORT": str(server.port),
        "CHAT4ALL_DATABASE_PASSWORD": server.password,
    }

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ingest_api.audit", *arguments],
            env={**environment, **changes},
            capture_output=True,
            text=True,
            check=False,
        )

    private, public, heads = (tmp_path / name for name in ("private.json", "public.json", "heads.jws"))
    subprocess.run(
        [sys.executable, "-m", "ingest_api.signing_keys", "--private", str(private), "--public", str(public)],
        check=True,
    )
    exported = run("export", "--heads", str(heads), "--signing-keys", str(private))
    assert (exported.returncode, heads.stat().st_mode & 0o777) == (0, 0o600), exported.stderr
    verified = run("verify", "--heads", str(heads), "--jwks", str(public))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "10 entries up to position 10: nothing is wrong, 1 signed heads agree." in verified.stdout
    assert run("verify", "--from", "5").stdout.startswith("6 entries")

    line = heads.read_text()
    payload = line.split(".")[1]
    heads.write_text(line.replace(payload, payload[:-4] + ("AAAA" if payload[-4:] != "AAAA" else "BBBB")))
    report = json.loads((changed := run("verify", "--heads", str(heads), "--jwks", str(public), "--json")).stdout)
    assert (changed.returncode, len(report["faults"])) == (1, 1)

    other = tmp_path / "other.json"
    subprocess.run(
        [sys.executable, "-m", "ingest_api.signing_keys", "--private", str(tmp_path / "p"), "--public", str(other)],
        check=True,
    )
    heads.write_text(line)
    unchecked = run("verify", "--heads", str(heads), "--jwks", str(other))
    assert "no --jwks holds it" in unchecked.stderr

    assert run("verify", "--heads", str(heads)).returncode == 2
    away = run("verify", CHAT4ALL_DATABASE_PORT="1")
    assert (away.returncode, "cannot be read" in away.stderr) == (2, True)


async def test_the_api_exports_the_head_when_it_ends(server: Server, tmp_path: Path) -> None:
    heads = tmp_path / "audit" / "heads.jws"
    async with open_desk(server, tmp_path, audit_head_file=heads, audit_head_seconds=0.05) as desk:
        await desk.create_conversation(await desk.register())
        async with asyncio.timeout(10):
            while not heads.exists():
                await asyncio.sleep(0.01)
        await desk.create_conversation(await desk.register())
    keys = {str(key.kid): key for key in read_key_set(desk.settings.signing_key_file)}
    signed = SignedHeads(heads.read_text().splitlines(), keys.get)
    with psycopg.connect(**login(server)) as connection:
        report = verify_log(connection, signed)
    assert (report.faults, report.unknown_keys, report.heads >= 2) == ([], [], True)


def test_a_token_is_no_signed_head(tmp_path: Path) -> None:
    append_line(tmp_path / "heads", "eyJhbGciOiJub25lIn0.e30.")
    append_line(tmp_path / "heads", "nonsense")
    signed = SignedHeads((tmp_path / "heads").read_text().splitlines(), {str(KEY.kid): KEY}.get)
    assert (len(signed.faults) + len(signed.unknown_keys), signed.count) == (2, 0)


def position(owner: psycopg.Connection[tuple[Any, ...]]) -> int:
    row = owner.execute("SELECT position FROM audit_head").fetchone()
    assert row is not None
    return int(row[0])


def read(owner: psycopg.Connection[tuple[Any, ...]], after: int) -> list[tuple[str, str | None]]:
    """Action and actor of each entry behind a position."""
    return [
        (row[0], row[1])
        for row in owner.execute(
            "SELECT action, actor_id FROM audit_log WHERE position > %s ORDER BY position", (after,)
        ).fetchall()
    ]
