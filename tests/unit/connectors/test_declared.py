"""Files and overlays make one declaration, or a sentence that says what is wrong where."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.config_file import TargetState
from connectors.declared import CONFIGS, Declaration, environments, read_declaration
from connectors.documents import UnusableFile
from connectors.schema import DEBEZIUM_POSTGRES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "overlays").mkdir()
    (tmp_path / "a.json").write_text('{"name": "a", "config": {"connector.class": "k", "x": "1", "y": "2"}}')
    (tmp_path / "b.yaml").write_text("name: b\nconfig:\n  connector.class: k\n")
    (tmp_path / "notes.txt").write_text("no connector")
    return tmp_path


def settings(declaration: Declaration) -> dict[str, dict[str, str]]:
    """The settings of each connector besides name and class."""
    hidden = {"name", "connector.class"}
    return {c.name: {k: v for k, v in c.config.items() if k not in hidden} for c in declaration.connectors}


def test_a_folder_is_the_whole_truth_and_a_file_is_not(folder: Path) -> None:
    assert settings(read_declaration([folder])) == {"a": {"x": "1", "y": "2"}, "b": {}}
    assert read_declaration([folder]).is_whole
    assert not read_declaration([folder / "a.json"]).is_whole


def test_an_overlay_replaces_adds_and_removes_by_key(folder: Path) -> None:
    overlay = "a:\n  config: {x: 9, y: null, z: 3}\nb: {state: stopped}\n"
    (folder / "overlays" / "staging.yaml").write_text(overlay)
    declaration = read_declaration([folder], "staging")
    assert settings(declaration) == {"a": {"x": "9", "z": "3"}, "b": {}}
    assert [c.state for c in declaration.connectors] == [TargetState.running, TargetState.stopped]
    assert settings(read_declaration([folder])) == {"a": {"x": "1", "y": "2"}, "b": {}}


def test_an_overlay_may_leave_a_connector_out(folder: Path) -> None:
    (folder / "overlays" / "small.yaml").write_text("b: null\n")
    assert set(settings(read_declaration([folder], "small"))) == {"a"}


def test_an_overlay_may_add_what_the_file_lacks(folder: Path) -> None:
    (folder / "c.json").write_text('{"name": "c", "config": {}}')
    (folder / "overlays" / "full.yaml").write_text("c: {config: {connector.class: k}}\n")
    assert "c" in settings(read_declaration([folder], "full"))
    with pytest.raises(UnusableFile, match=r"connector\.class"):
        read_declaration([folder])


@pytest.mark.parametrize(
    ("name", "overlay", "sentence"),
    [
        ("nowhere", None, r"no overlay .*nowhere\.yaml; the environments here: staging"),
        ("../a", None, "no overlay"),
        ("staging", "c: {config: {x: 1}}\n", "is for c, which no file declares"),
        ("staging", "a: {x: 1}\n", 'must say per connector what to lay over it, by "config", "state" or "outboxes"'),
        ("staging", "- a\n", "must say per connector"),
        ("staging", "a: {config: {x: [1]}}\n", 'the setting "x" must be'),
        ("staging", "a: {config: {x: 1, x: 2}}\n", 'says "x" twice'),
    ],
)
def test_an_overlay_that_cannot_be_used_is_refused(folder: Path, name: str, overlay: str | None, sentence: str) -> None:
    (folder / "overlays" / "staging.yaml").write_text(overlay or "")
    with pytest.raises(UnusableFile, match=sentence):
        read_declaration([folder], name)


def test_a_connector_is_declared_once(folder: Path) -> None:
    (folder / "c.json").write_text('{"name": "a", "config": {"connector.class": "k"}}')
    with pytest.raises(UnusableFile, match=r"both declare a\."):
        read_declaration([folder])


def test_a_folder_without_connectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="holds no connector file"):
        read_declaration([tmp_path])


def outbox(folder: Path, name: str, **changes: str) -> None:
    config = {
        "connector.class": DEBEZIUM_POSTGRES,
        "topic.prefix": name,
        "slot.name": name,
        **{f"database.{part}": f"${{env:{part}}}" for part in ("hostname", "port", "dbname", "user", "password")},
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    lines = "".join(f'  {key}: "{value}"\n' for key, value in config.items())
    (folder / f"{name}.yaml").write_text(f"name: {name}\nconfig:\n{lines}")


def test_two_connectors_on_one_slot_are_refused(tmp_path: Path) -> None:
    outbox(tmp_path, "one")
    outbox(tmp_path, "two")
    assert len(read_declaration([tmp_path]).connectors) == 2
    outbox(tmp_path, "two", slot__name="one")
    with pytest.raises(UnusableFile, match=r"one and two have the same slot\.name: two readers"):
        read_declaration([tmp_path])
    outbox(tmp_path, "two", slot__name="one", database__hostname="elsewhere")
    assert len(read_declaration([tmp_path]).connectors) == 2


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("tasks.max", "2", "tasks.max: must be 1"),
        ("slot.name", "Upper-Case", "slot.name: must be 1 to 63 lower-case letters"),
        ("plugin.name", "wal2json", "plugin.name: must be one of pgoutput, decoderbufs"),
        ("publication.autocreate.mode", "sometimes", "must be one of all_tables, disabled"),
        ("heartbeat.interval.ms", "5s", "heartbeat.interval.ms: must be a whole number of 0 or more"),
        ("poll.interval.ms", "0", "poll.interval.ms: must be a whole number of 1 or more"),
        ("errors.tolerance", "some", "errors.tolerance: must be one of none, all"),
        ("database.dbname", " ", "database.dbname: must not be empty"),
        ("database.password", "hunter2", "database.password: holds a secret"),
        ("x.url", "postgresql://u:hunter2@h/d", "x.url: holds a secret"),
        ("database.user", "${vault:a/b:c}", "refers to .*vault.*, and Connect resolves env and file alone"),
        ("value.converter", "not a class", "value.converter: must be the name of a Java class"),
    ],
)
def test_a_setting_that_no_database_could_accept_is_refused(
    tmp_path: Path, setting: str, value: str, sentence: str
) -> None:
    outbox(tmp_path, "one", **{setting: value})
    with pytest.raises(UnusableFile, match=sentence) as refused:
        read_declaration([tmp_path])
    assert "hunter2" not in str(refused.value)


def test_what_is_missing_is_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(f"name: one\nconfig: {{connector.class: {DEBEZIUM_POSTGRES}}}\n")
    with pytest.raises(UnusableFile) as refused:
        read_declaration([tmp_path])
    assert str(refused.value).count("is missing") == 5


def test_any_typed_setting_may_be_a_reference(tmp_path: Path) -> None:
    outbox(tmp_path, "one", slot__name="${env:SLOT}", poll__interval__ms="${file:/etc/x.properties:poll}")
    assert len(read_declaration([tmp_path]).connectors) == 1


@pytest.mark.parametrize("environment", [None, *environments(CONFIGS)])
def test_what_this_project_declares_is_in_order_in_every_environment(environment: str | None) -> None:
    assert read_declaration([CONFIGS], environment).is_whole


def test_the_overlay_for_catching_up_changes_the_batches_alone() -> None:
    usual, catching_up = (read_declaration([CONFIGS], name).connectors[0].config for name in (None, "catch-up"))
    assert dict(catching_up) == {**usual, "max.batch.size": "2048"}
