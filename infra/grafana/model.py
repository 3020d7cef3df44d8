"""A dashboard as data: rows of panels, each with a sentence for operators, a unit, and queries. No Grafana here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

RATE = "$__rate_interval"
"""Grafana puts the narrowest interval there over which a rate can be told."""


class Look(StrEnum):
    """How a panel shows its queries."""

    LINES = "lines"
    NUMBER = "number"


class Unit(StrEnum):
    """What a panel's numbers are, by Grafana's names."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    SHARE = "percentunit"
    PER_SECOND = "ops"
    REQUESTS_PER_SECOND = "reqps"
    COUNT = "short"
    YES_NO = "bool_yes_no"
    PLAIN = "none"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what its lines are called: Grafana puts a label where it says `{{label}}`."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One question and its answer. `description` says what a number means and from when on to worry."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    look: Look = Look.LINES


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. `uid` is its address, and stays."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        """All of them, in order."""
        for row in self.rows:
            yield from row.panels


def quantiles(metric: str, *shares: float, where: str = "") -> tuple[Query, ...]:
    """Of a histogram: such shares of what happened took at most so long."""
    selector = f"{{{where}}}" if where else ""
    return tuple(
        Query(
            f"histogram_quantile({share:g}, sum by (le) (rate({metric}_bucket{selector}[{RATE}])))", f"p{100 * share:g}"
        )
        for share in shares
    )


def rate(metric: str, legend: str, *, by: str = "", where: str = "") -> Query:
    """How often per second, summed over all processes; `by` keeps a label."""
    selector = f"{{{where}}}" if where else ""
    return Query(f"sum{f' by ({by})' if by else ''} (rate({metric}{selector}[{RATE}]))", legend)


def or_zero(query: Query) -> Query:
    """The same, and 0 as long as nothing was counted: a label's value appears with the first count."""
    return Query(f"({query.expression}) or on() vector(0)", query.legend)
