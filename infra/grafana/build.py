"""Boards -> Grafana's JSON, by Grafana's own library."""

from __future__ import annotations

import string

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, DataSourceRef
from grafana_foundation_sdk.models.dashboard import Panel as PanelModel

from infra.grafana.model import Board, Look, Panel, Query

SOURCE = "source"
HEIGHT = 8
PANELS_ABREAST = 3
WIDTH = 24


def to_json(board: Board) -> str:
    """The dashboard's file. Whoever imports it chooses the Prometheus that it asks."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["chat4all"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable(SOURCE).label("Prometheus").type("prometheus"))
        .link(
            dashboard.DashboardLink("Chat4All").tags(["chat4all"]).as_dropdown(True).type(DashboardLinkType.DASHBOARDS)
        )
    )
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(_panel(panel, abreast=min(PANELS_ABREAST, len(row.panels))))
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(built.build()) + "\n"


def _panel(panel: Panel, *, abreast: int) -> Builder[PanelModel]:
    made = _number() if panel.look is Look.NUMBER else _lines()
    made = (
        made.title(panel.title)
        .description(panel.description)
        .unit(panel.unit.value)
        .datasource(_source())
        .height(HEIGHT)
        .span(WIDTH // abreast)
        .min(0)
    )
    for letter, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        made = made.with_target(_query(query, letter))
    return made


def _lines() -> timeseries.Panel:
    return (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )


def _number() -> stat.Panel:
    return stat.Panel().graph_mode(BigValueGraphMode.AREA)


def _query(query: Query, letter: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(query.expression)
        .legend_format(query.legend)
        .ref_id(letter)
        .range()
        .datasource(_source())
    )


def _source() -> DataSourceRef:
    return DataSourceRef(type_val="prometheus", uid=f"${{{SOURCE}}}")
