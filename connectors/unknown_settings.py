"""Settings that nobody knows. Connect passes over them without a word, so a slip of the pen leaves a default in force.
Pure."""

from __future__ import annotations

import difflib
from collections.abc import Set

from connectors.model import Config

UNLISTED = frozenset({"offset.mismatch.strategy"})
"""Settings that Debezium 3.7 takes and leaves out of its list."""
OPEN_PREFIXES = ("producer.override.", "consumer.override.", "admin.override.", "driver.", "signal.kafka.")
"""What is passed on to others, whose settings Connect does not list."""


def unknown_settings(config: Config, known: Set[str]) -> list[str]:
    """A sentence per setting that is not `known`, with the known one that it resembles most; sorted."""
    return [
        _sentence(key, known)
        for key in sorted(config)
        if key not in known | UNLISTED and not key.startswith(OPEN_PREFIXES)
    ]


def _sentence(key: str, known: Set[str]) -> str:
    alike = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
    return f"nobody knows the setting {key}" + (f"; do you mean {alike[0]}?" if alike else ".")
