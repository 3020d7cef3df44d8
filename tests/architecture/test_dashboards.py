"""Dashboards ask for what something tells, in PromQL, and say what it means."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.grafana.__main__ import FOLDER, differing, files
from infra.grafana.boards import BOARDS
from infra.grafana.model import RATE, Board, Look, Panel, Row, Unit
from infra.metrics_page import CATALOGUES
from schemas.metrics import PROCESS_METRICS
from tests.alert_cases import metrics_in
from tests.exporters import EXPORTED, OF_PROMETHEUS

ROOT = Path(__file__).resolve().parents[2]
BY_JMX = {rule["name"] for rule in yaml.safe_load((ROOT / "infra/connect/jmx.yml").read_text("utf-8"))["rules"]}
BY_EXPORTERS = {
    "node_cpu_seconds_total",
    "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback",
    "redis_commands_processed_total",
}
"""Besides those that rules ask for; tests/e2e/test_dashboards.py sees that they are told."""
TOLD = frozenset(
    {name for catalogue in CATALOGUES.values() for name in catalogue}
    | {metric.name for metric in PROCESS_METRICS}
    | {name for names in EXPORTED.values() for name in names}
    | BY_JMX
    | BY_EXPORTERS
    | OF_PROMETHEUS
)
PANELS = [pytest.param(panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels()]


def base_of(metric: str) -> str:
    """Of a histogram's series the histogram; any other is its own."""
    for suffix in ("_bucket", "_sum", "_count"):
        if metric not in TOLD and metric.endswith(suffix):
            return metric.removesuffix(suffix)
    return metric


def test_the_committed_files_are_made_from_the_boards(tmp_path: Path) -> None:
    assert differing(FOLDER) == [], "run `make dashboards`"
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "gone.json").write_text("{}")
    (tmp_path / "chat4all-cdc.json").write_text("{}")
    assert differing(tmp_path) == ["chat4all-cdc.json", "gone.json"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_when_to_worry(panel: Panel) -> None:
    assert panel.title
    assert panel.description.endswith(".")
    assert isinstance(panel.unit, Unit)
    assert panel.queries
    assert all(query.legend for query in panel.queries)
    assert panel.look is Look.LINES or len(panel.queries) == 1


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_metrics_that_something_tells(panel: Panel) -> None:
    asked = {base_of(metric) for query in panel.queries for metric in metrics_in(query.expression.replace(RATE, "1m"))}
    assert asked
    assert asked - TOLD == set()


def test_every_query_is_promql(tmp_path: Path) -> None:
    """Written down as a recording rule each, since that is what promtool reads."""
    queries = [query.expression for board in BOARDS for panel in board.panels() for query in panel.queries]
    rules = [
        {"record": f"query:number_{number}", "expr": expression.replace(RATE, "1m")}
        for number, expression in enumerate(queries)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_uids_and_titles_are_there_once() -> None:
    assert len({board.uid for board in BOARDS}) == len({board.title for board in BOARDS}) == len(BOARDS)
    for board in BOARDS:
        titles = [panel.title for panel in board.panels()]
        assert len(set(titles)) == len(titles), board.title


def grid_of(board: dict[str, Any]) -> list[tuple[str, int, int, int, int]]:
    """Type and place of each panel: x, y, width, height."""
    return [
        (each["type"], *(int(each["gridPos"].get(key, 0)) for key in ("x", "y", "w", "h"))) for each in board["panels"]
    ]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafana_gets_every_panel_in_a_place_of_its_own(board: Board) -> None:
    made = json.loads(files()[f"{board.uid}.json"])
    grid = grid_of(made)
    shown = [each for each in made["panels"] if each["type"] != "row"]
    assert [each["title"] for each in shown] == [panel.title for panel in board.panels()]
    assert [each["title"] for each in made["panels"] if each["type"] == "row"] == [row.title for row in board.rows]
    assert all(each["fieldConfig"]["defaults"]["unit"] and each["description"] for each in shown)
    cells = [(x + i, y + j) for _, x, y, w, h in grid for i in range(w) for j in range(h)]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert all(x + w <= 24 for _, x, _, w, _ in grid)


def test_a_board_lists_its_panels_in_the_order_of_its_rows() -> None:
    def panel(title: str) -> Panel:
        return Panel(title, "Something.", Unit.COUNT, ())

    board = Board("x", "X", "X.", (Row("one", (panel("a"), panel("b"))), Row("two", (panel("c"),))))
    assert [each.title for each in board.panels()] == ["a", "b", "c"]
