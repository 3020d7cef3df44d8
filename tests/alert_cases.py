"""Alert rules and their cases as data, and promtool's tests made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "infra" / "prometheus" / "rules"
CASES = ROOT / "tests" / "alerts"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule, and the file that it is in."""

    file: str
    name: str
    expression: str
    labels: dict[str, str]
    annotations: dict[str, str]
    for_seconds: int

    @property
    def labels_in_words(self) -> set[str]:
        """The labels that its annotations speak of."""
        return set(re.findall(r"\$labels\.(\w+)", " ".join(self.annotations.values())))


@dataclass(frozen=True, slots=True)
class Case:
    """Series on which a rule fires and others on which it does not, for `seconds`, a sample `every` so many."""

    file: str
    name: str
    seconds: int
    every: int
    fires: dict[str, Any]
    silent: dict[str, Any]


def seconds_of(duration: str) -> int:
    """A duration as Prometheus writes it: `90m`."""
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


def read_groups() -> list[tuple[str, dict[str, Any]]]:
    """(file, group) for every group of rules."""
    return [
        (path.name, group)
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]


def read_rules() -> list[Rule]:
    """Every alert rule."""
    return [
        Rule(
            file=file,
            name=rule["alert"],
            expression=rule["expr"],
            labels=rule["labels"],
            annotations=rule["annotations"],
            for_seconds=seconds_of(rule["for"]),
        )
        for file, group in read_groups()
        for rule in group["rules"]
        if "alert" in rule
    ]


def read_cases() -> list[Case]:
    """Every pair of cases."""
    return [
        Case(
            file=path.name,
            name=name,
            seconds=seconds_of(case["after"]),
            every=seconds_of(case.get("every", "15s")),
            fires=case["fires"],
            silent=case["silent"],
        )
        for path in sorted(CASES.glob("*.yml"))
        for name, case in yaml.safe_load(path.read_text("utf-8")).items()
    ]


def metric_of(series: str) -> str:
    """`up{job="a"}` -> `up`."""
    return series.partition("{")[0]


def metrics_in(expression: str) -> set[str]:
    """The names of metrics in an expression: words that are no function, keyword, label or duration."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    return {
        word for word in re.findall(r"[a-z][\w:]*", bare, re.IGNORECASE) if re.search(r"[_:]|^up$", word)
    } - FUNCTIONS


FUNCTIONS = {"avg_over_time", "histogram_quantile", "predict_linear"}


def promtool_test(rule: Rule, case: Case) -> dict[str, Any]:
    """promtool's document for a rule's two cases. Labels that the annotations speak of must be there."""
    told = "".join(f',{label}!=""' for label in sorted(rule.labels_in_words))
    firing = f'count(ALERTS{{alertname="{rule.name}",alertstate="firing",severity="{rule.labels["severity"]}"{told}}})'
    return {
        "rule_files": [str(RULES / rule.file)],
        "evaluation_interval": f"{case.every}s",
        "tests": [
            _one(case, f"{rule.name} fires", case.fires, f"({firing} > bool 0) or vector(0)", 1),
            _one(
                case,
                f"{rule.name} is silent",
                case.silent,
                f'count(ALERTS{{alertname="{rule.name}",alertstate="firing"}}) or vector(0)',
                0,
            ),
        ],
    }


def _one(case: Case, name: str, series: dict[str, Any], expression: str, expected: int) -> dict[str, Any]:
    return {
        "name": name,
        "interval": f"{case.every}s",
        "input_series": [
            {"series": each, "values": _values(values, case.seconds // case.every)} for each, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": f"{case.seconds}s",
                "exp_samples": [{"labels": "{}", "value": expected}],
            }
        ],
    }


def _values(values: object, samples: int) -> str:
    """`7` stays 7, `0+5` grows by 5 with each sample; what has an x is promtool's own notation."""
    text = str(values)
    if "x" in text:
        return text
    return f"{text}x{samples}" if re.search(r"\d[+-]\d", text) else f"{text}+0x{samples}"
