"""Names of change data capture that programs share: what an outbox is called, and the lock that keeps writes away."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = "chat4all_outbox"
"""Publication and replication slot of the first outbox; those of the others end in `_1`, `_2` …"""

CONNECTOR = "chat4all-outbox"
_PATTERN = re.compile(rf"{NAME}(?:_([1-9]\d{{0,2}}))?")

HOLD_CLASS, HOLD_OBJECT = 0x43444331, 1
"""The advisory lock of PostgreSQL (its two keys) that is held while what was not streamed is brought back, or outboxes
become more or fewer: the API takes no writes meanwhile, so that nothing new overtakes what is old."""


class Outbox(NamedTuple):
    """One share of the conversations on its way to Kafka: a publication, a replication slot and a connector. `number`
    counts from 0."""

    number: int

    @property
    def slot(self) -> str:
        """The replication slot, and the publication, which has the same name."""
        return NAME if self.number == 0 else f"{NAME}_{self.number}"

    @property
    def connector(self) -> str:
        """The connector that reads it."""
        return CONNECTOR if self.number == 0 else f"{CONNECTOR}-{self.number}"

    @property
    def heartbeat_id(self) -> int:
        """Its row of `cdc_heartbeat`."""
        return self.number + 1


def find_outbox(slot: str) -> Outbox | None:
    """The outbox whose slot and publication have this name."""
    found = _PATTERN.fullmatch(slot)
    return Outbox(int(found[1] or 0)) if found else None
