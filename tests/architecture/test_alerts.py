"""Every alert rule has cases, a runbook section and metrics that something tells, and there is none of these without a
rule."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from infra.metrics_page import CATALOGUES
from tests.alert_cases import Rule, metric_of, metrics_in, read_cases, read_groups, read_rules
from tests.exporters import EXPORTED, OF_PROCESSES, OF_PROMETHEUS

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = "docs/operations.md"
SEVERITIES = {"page", "ticket", "info"}
RULES = read_rules()


def runbooks() -> dict[str, str]:
    """Heading -> its section's text; headings in a row share what follows them."""
    text = (ROOT / RUNBOOKS).read_text("utf-8").partition("\n## Alerts\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    waiting: list[str] = []
    for part in re.split(r"(?m)^### ", text)[1:]:
        heading, _, body = part.partition("\n")
        waiting.append(heading)
        if body.strip():
            found.update(dict.fromkeys(waiting, body))
            waiting = []
    return found


@cache
def our_metrics() -> frozenset[str]:
    """The names of the metrics that our programs tell."""
    return frozenset(name for catalogue in CATALOGUES.values() for name in catalogue)


@cache
def recorded() -> dict[str, set[str]]:
    """Name of a recorded series -> the metrics that it is made from."""
    return {
        rule["record"]: metrics_in(rule["expr"])
        for _, group in read_groups()
        for rule in group["rules"]
        if "record" in rule
    }


def sources_of(metric: str) -> set[str]:
    """What a recorded series is made from, down to what is scraped; any other is its own source."""
    if metric not in recorded():
        return {metric}
    return set().union(*map(sources_of, recorded()[metric]))


def is_told(metric: str) -> bool:
    """Whether something tells this metric, or a rule records it."""
    exported = {name for names in EXPORTED.values() for name in names}
    told = our_metrics() | exported | OF_PROCESSES | OF_PROMETHEUS | recorded().keys()
    return metric in told or re.sub(r"_(bucket|count|sum)$", "", metric) in told


def test_there_are_at_least_forty_rules_each_with_a_name_of_its_own() -> None:
    assert len(RULES) >= 40
    assert [name for name, times in Counter(rule.name for rule in RULES).items() if times > 1] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_says_how_bad_it_is_what_it_means_and_where_to_read_on(rule: Rule) -> None:
    assert set(rule.labels) == {"severity"}
    assert rule.labels["severity"] in SEVERITIES
    assert set(rule.annotations) == {"summary", "description", "runbook"}
    assert rule.annotations["runbook"] == f"{RUNBOOKS}#{rule.name.lower()}"
    assert not rule.annotations["summary"].endswith("."), "a summary is a headline"
    assert rule.annotations["description"].endswith("."), "a description is made of sentences"


def test_every_rule_has_a_runbook_section_and_every_section_a_rule() -> None:
    assert set(runbooks()) == {rule.name for rule in RULES}


@pytest.mark.parametrize(("name", "section"), runbooks().items(), ids=runbooks())
def test_a_runbook_section_says_what_is_seen_what_it_means_what_to_look_at_and_what_to_do(
    name: str, section: str
) -> None:
    steps = re.findall(r"(?m)^(\d)\. ", section)

    assert section.lstrip().startswith("Seen: ")
    assert " Means: " in section.replace("\n", " ")
    assert steps == ["1", "2", "3"]
    assert "\nRemedy: " in section


def test_a_runbook_points_to_sections_that_exist() -> None:
    headings = re.findall(r"(?m)^#{2,3} (.+)$", (ROOT / RUNBOOKS).read_text("utf-8"))
    for name, section in runbooks().items():
        for pointed in re.findall(r"(?<!\*)\*([^*`]+)\*(?!\*)", " ".join(section.split())):
            assert pointed in headings, f"{name} points to {pointed}"


def test_every_rule_has_cases_in_the_file_of_its_name_and_no_case_lacks_a_rule() -> None:
    cases = {case.name: case.file for case in read_cases()}

    assert cases == {rule.name: rule.file for rule in RULES}


def test_a_silent_case_is_one_because_of_values_and_not_for_lack_of_any() -> None:
    for case in read_cases():
        assert {metric_of(each) for each in case.silent} == {metric_of(each) for each in case.fires}, case.name


def test_a_case_has_no_series_that_its_rule_does_not_ask_for() -> None:
    rules = {rule.name: rule for rule in RULES}
    for case in read_cases():
        asked = metrics_in(rules[case.name].expression)
        sources = set().union(*map(sources_of, asked))
        histograms = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in sources}
        for series in case.fires:
            metric = metric_of(series)
            assert metric in sources or re.sub(r"_bucket$", "", metric) in histograms, (case.name, series)


def test_every_metric_that_a_rule_asks_for_is_told_by_something() -> None:
    asked = {
        metric: rule.get("alert", rule.get("record"))
        for _, group in read_groups()
        for rule in group["rules"]
        for metric in metrics_in(rule["expr"])
    }

    assert {metric: rule for metric, rule in asked.items() if not is_told(metric)} == {}


def test_every_metric_that_a_runbook_asks_for_is_told_by_something() -> None:
    asked = {
        metric: name
        for name, section in runbooks().items()
        for query in re.findall(r"promtool query instant \S+ '([^']+)'", " ".join(section.split()))
        for metric in metrics_in(query)
    }

    assert len(asked) > 30
    assert {metric: name for metric, name in asked.items() if not is_told(metric)} == {}


def test_every_exported_metric_that_is_listed_is_asked_for() -> None:
    asked = {metric for _, group in read_groups() for rule in group["rules"] for metric in metrics_in(rule["expr"])}

    for job, names in EXPORTED.items():
        assert names <= asked, job


def test_metrics_are_found_in_expressions() -> None:
    expression = (
        'sum by (le, job) (rate(a_total{route=~"b_c"}[5m])) > 0.5 and on(x_y) up == 0 or histogram_quantile(0.9, e:f)'
    )

    assert metrics_in(expression) == {"a_total", "up", "e:f"}
