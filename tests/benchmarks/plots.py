"""Plots of the figures as SVG, without a library: the same results give the same bytes, so that they can be committed
and compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import TARGETS, read_figures

WIDTH = 760
LEFT = 290
RIGHT = 90
ROW = 24
TOP = 56
COLORS = ("#3366aa", "#dd8833", "#559955", "#aa4455", "#7755aa", "#997744", "#5599aa", "#bbbb44", "#dd77aa", "#999999")


@dataclass(frozen=True)
class Bar:
    """One bar: what it says on the left, its parts (drawn one after the other), and a target to mark on it."""

    label: str
    parts: tuple[float, ...]
    target: float | None = None

    @property
    def total(self) -> float:
        """How long it is."""
        return sum(self.parts)


@dataclass(frozen=True)
class Plot:
    """Horizontal bars. With `is_logarithmic` every factor of ten is equally wide; such bars have one part."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    parts: tuple[str, ...] = ()
    is_logarithmic: bool = False


@dataclass(frozen=True)
class Scale:
    """Values -> places on the x axis."""

    low: float
    high: float
    is_logarithmic: bool

    def place(self, value: float) -> float:
        """In pixels from the left."""
        if self.is_logarithmic:
            share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:
            share = value / self.high
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """Where the axis is labelled."""
        if self.is_logarithmic:
            first = round(math.log10(self.low))
            return [10.0**power for power in range(first, round(math.log10(self.high)) + 1)]
        step = _round_step(self.high / 5)
        return [step * number for number in range(int(self.high / step + 1e-9) + 1)]


def _round_step(width: float) -> float:
    """1, 2 or 5 times a power of ten, and at least this wide."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= width)


def scale_of(plot: Plot) -> Scale:
    """What has room for every bar and target."""
    values = [value for bar in plot.bars for value in (bar.total, bar.target) if value]
    high = max(values, default=1.0)
    if not plot.is_logarithmic:
        return Scale(0, high * 1.05, False)
    low = 10.0 ** math.floor(math.log10(min(values, default=1.0)))
    return Scale(low, max(10.0 ** math.ceil(math.log10(high)), low * 10), True)


def draw(plot: Plot) -> str:
    """The SVG text."""
    scale = scale_of(plot)
    bottom = TOP + ROW * len(plot.bars)
    height = bottom + 40 + (18 if plot.parts else 0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' font-family="sans-serif" font-size="12" role="img" aria-label="{escape(plot.title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(plot.title)}</text>',
        f'<text x="12" y="40" fill="#555555">{escape(_caption(plot))}</text>',
    ]
    for tick in scale.ticks():
        x = scale.place(tick)
        lines += [
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#dddddd"/>',
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555555">{_number(tick)}</text>',
        ]
    for number, bar in enumerate(plot.bars):
        lines += _draw_bar(bar, TOP + ROW * number, scale)
    for number, name in enumerate(plot.parts):
        x, color = 12 + (number % 10) * 74, COLORS[number % len(COLORS)]
        y = bottom + 34 + 14 * (number // 10)
        lines.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{color}"/>')
        lines.append(f'<text x="{x + 14}" y="{y}" font-size="10">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _caption(plot: Plot) -> str:
    marks = "; the red line is the target" if any(bar.target for bar in plot.bars) else ""
    return plot.unit + (", logarithmic" if plot.is_logarithmic else "") + marks


def _draw_bar(bar: Bar, y: int, scale: Scale) -> list[str]:
    lines = [f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>']
    start = 0.0
    for number, part in enumerate(bar.parts):
        x = scale.place(start) if start else LEFT
        end = scale.place(start + part)
        color = COLORS[number % len(COLORS)]
        lines.append(
            f'<rect x="{x:.1f}" y="{y + 2}" width="{max(end - x, 0.5):.1f}" height="{ROW - 8}" fill="{color}"/>'
        )
        start += part
    end = scale.place(max(bar.total, bar.target or 0))
    lines.append(f'<text x="{end + 6:.1f}" y="{y + 14}">{_number(bar.total)}</text>')
    if bar.target:
        x = scale.place(bar.target)
        lines.append(
            f'<line x1="{x:.1f}" y1="{y - 1}" x2="{x:.1f}" y2="{y + ROW - 4}" stroke="#cc0000" stroke-width="2"/>'
        )
    return lines


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"


def plots_of(results: dict[str, Any]) -> dict[str, Plot]:
    """File name -> plot, of what the results have."""
    figures = read_figures(results)
    bounds = {target.figure: target.bound for target in TARGETS}

    def bars(names: list[str]) -> tuple[Bar, ...]:
        return tuple(Bar(name, (round(figures[name].mean, 2),), bounds.get(name)) for name in names if name in figures)

    latency = bars([name for name in figures if name.startswith("submit → received")])
    ways = bars([name for name in figures if name.startswith("insert → Kafka")])
    rates = bars(
        [
            *(name for name in figures if name.startswith("log writer,")),
            *("pgbench", "single posts, whole system running", "single posts, stream side stopped"),
            *("batches of 100, stream side stopped", "backlog to Kafka, one outbox"),
            *("timeline worker", "hand-written loop", "backfill"),
        ]
    )
    plots = {
        "latency.svg": Plot("From the request to the live client", "milliseconds", latency, is_logarithmic=True),
        "ways-to-kafka.svg": Plot("From the insert to a Kafka consumer", "milliseconds", ways, is_logarithmic=True),
        "rates.svg": Plot("How much each part takes", "per second", rates, is_logarithmic=True),
        "cpu.svg": _cpu_plot(results.get("latency", [])),
    }
    return {name: plot for name, plot in plots.items() if plot.bars}


def _cpu_plot(runs: list[dict[str, Any]]) -> Plot:
    """The programs that take most; the others together."""
    totals: dict[str, float] = {}
    for run in runs:
        for program, percent in {**run["cpu_percent"], "generator": run["generator_cpu_percent"]}.items():
            totals[program] = totals.get(program, 0) + percent
    shown = sorted(totals, key=lambda program: -totals[program])[: len(COLORS) - 1]
    bars = []
    for run in runs:
        used = {**run["cpu_percent"], "generator": run["generator_cpu_percent"]}
        rest = sum(percent for program, percent in used.items() if program not in shown)
        bars.append(Bar(f"{run['rate_per_second']:g}/s", (*(used.get(program, 0.0) for program in shown), rest)))
    return Plot("Where the CPU time goes", "percent of one core", tuple(bars), (*shown, "others"))


def write_plots(results: dict[str, Any], folder: Path) -> list[str]:
    """Writes them, and removes those that the results do not have; the names of those that are there."""
    plots = plots_of(results)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in plots:
            old.unlink()
    for name, plot in plots.items():
        (folder / name).write_text(draw(plot), "utf-8")
    return list(plots)
