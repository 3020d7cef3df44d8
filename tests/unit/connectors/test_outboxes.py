"""Several outboxes made from one declared connector, and which conversations each of them streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.config_file import ConnectorFile, read_connector_file
from connectors.declared import read_declaration
from connectors.documents import UnusableFile
from connectors.outboxes.model import MOST, Share, Unsplittable, connector_files, missing_and_surplus, read_share
from connectors.slots import heartbeat_id
from schemas.outboxes import Outbox
from tests.conftest import ROOT

OUTBOX_FILE = ROOT / "connectors/configs/outbox.json"
FIRST = read_connector_file(OUTBOX_FILE)

AS_POSTGRESQL_WRITES_IT = (
    "(((hashtextextended(aggregateid, (0)::bigint) & '9223372036854775807'::bigint) % (4)::bigint) = 2)"
)


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "outbox.json"
    path.write_text(json.dumps({**json.loads(OUTBOX_FILE.read_text()), **changes}))
    return path


def test_one_outbox_is_what_is_declared() -> None:
    assert connector_files(FIRST, 1) == [FIRST]


def test_each_of_several_has_a_slot_a_publication_and_a_heartbeat_of_its_own() -> None:
    files = connector_files(FIRST, 4)

    assert [file.name for file in files] == [Outbox(number).connector for number in range(4)]
    for key in ("name", "slot.name", "publication.name", "heartbeat.action.query"):
        assert len({file.config[key] for file in files}) == 4
    assert [heartbeat_id(file.config) for file in files] == [1, 2, 3, 4]
    assert files[0] == FIRST


def test_several_differ_in_nothing_else() -> None:
    own = {"name", "slot.name", "publication.name", "heartbeat.action.query", "custom.metric.tags"}
    second = connector_files(FIRST, 2)[1].config

    assert {key for key in second if second[key] != FIRST.config.get(key)} == own


def test_whose_names_are_other_ones_cannot_be_the_first_of_several() -> None:
    other = ConnectorFile("other", FIRST.connector_class, {**FIRST.config, "name": "other"})

    with pytest.raises(Unsplittable, match="not the connector of the first outbox"):
        connector_files(other, 2)


@pytest.mark.parametrize("total", [0, MOST + 1])
def test_there_is_a_least_and_a_most(total: int) -> None:
    with pytest.raises(Unsplittable, match=f"1 to {MOST}"):
        connector_files(FIRST, total)


def test_a_share_is_read_back_from_what_postgresql_makes_of_it() -> None:
    assert read_share(AS_POSTGRESQL_WRITES_IT) == Share(2, 4)
    assert read_share(Share(3, 5).row_filter()) == Share(3, 5)
    assert read_share(None) == Share(0, 1)
    assert read_share("(seq > 5)") is None


def test_the_file_says_how_many_there_are(tmp_path: Path) -> None:
    declared = read_declaration([write(tmp_path, outboxes=3)])

    assert [file.name for file in declared.connectors] == [Outbox(number).connector for number in range(3)]


def test_an_environment_may_have_more(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "big.yaml").write_text("chat4all-outbox:\n  outboxes: 2\n")

    assert len(read_declaration([path]).connectors) == 1
    assert len(read_declaration([path], "big").connectors) == 2


@pytest.mark.parametrize("outboxes", ["two", 0, 99, -1])
def test_a_number_that_makes_no_sense_is_a_sentence(tmp_path: Path, outboxes: Any) -> None:
    with pytest.raises(UnusableFile, match=r"outbox.json: .*outboxes"):
        read_declaration([write(tmp_path, outboxes=outboxes)])


def test_more_outboxes_add_and_fewer_take_away() -> None:
    two = [Outbox(0), Outbox(1)]

    assert missing_and_surplus(two, 4) == ([Outbox(2), Outbox(3)], [])
    assert missing_and_surplus(two, 1) == ([], [Outbox(1)])
    assert missing_and_surplus(two, 2) == ([], [])
