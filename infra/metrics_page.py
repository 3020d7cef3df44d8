"""docs/metrics.md, made from the programs' catalogues: `python -m infra.metrics_page > docs/metrics.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from connectors.supervise.catalogue import CATALOGUE as SUPERVISE
from ingest_api.catalogue import CATALOGUE as INGEST_API
from schemas.metrics import PROCESS_METRICS, Catalogue, Label, Metric
from stream_apps.audit.catalogue import CATALOGUE as AUDIT
from stream_apps.canary.catalogue import CATALOGUE as CANARY
from stream_apps.catalogue import CHANNEL_METRICS, ROUTER, TIMELINE
from stream_apps.delivery.catalogue import CATALOGUE as DELIVERY

CATALOGUES: Mapping[str, Catalogue] = {
    "ingest-api": INGEST_API,
    "timeline": TIMELINE,
    "router": ROUTER,
    "channels": CHANNEL_METRICS,
    "delivery": DELIVERY,
    "audit": AUDIT,
    "canary": CANARY,
    "supervise": SUPERVISE,
}
"""The metrics of each program, by its name in the stack."""

HEAD = """# Metrics

Made from the programs' catalogues by `python -m infra.metrics_page > docs/metrics.md`; a test compares. Every program
serves them at `/metrics`. A histogram's buckets are in its catalogue.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    own_names = {metric.name for metric in PROCESS_METRICS}
    for program, catalogue in CATALOGUES.items():
        own = [metric for name, metric in catalogue.items() if name not in own_names]
        parts.append("\n".join((f"## {program}\n", *_table(own), "")))
    parts.append("\n".join(("## Of every process\n", *_table(PROCESS_METRICS), "")))
    return "\n".join(parts)


def _table(metrics: tuple[Metric, ...] | list[Metric]) -> Iterator[str]:
    yield "| metric | type | unit | labels | |"
    yield "|---|---|---|---|---|"
    for metric in metrics:
        labels = "; ".join(_described(label) for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.sentence} |"


def _described(label: Label) -> str:
    return f"`{label.name}`: {label.bound or ', '.join(label.values)}"


if __name__ == "__main__":
    sys.stdout.write(page())
