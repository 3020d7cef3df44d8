"""Which conversations an outbox streams, and the connector that does it, made from the first one's. Pure; no I/O.

All entries of a conversation have one `aggregateid`, so they are in one share, one slot and one connector: their order
is kept however many outboxes there are. The outbox's table stays one; a publication's row filter picks the share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from connectors.config_file import ConnectorFile
from connectors.slots import heartbeat_id
from schemas.outboxes import Outbox

MOST = 16
_SHARE = re.compile(r"%\s*\(?(\d+)\)?(?:::bigint)?\)?\s*=\s*\(?(\d+)\)?")


class Unsplittable(ValueError):
    """The connector cannot be the first of several; the message is a sentence."""


class Share(NamedTuple):
    """One of `total` equal shares of the conversations; `number` counts from 0."""

    number: int
    total: int

    def row_filter(self) -> str | None:
        """The condition on a row of the outbox, for a publication; None when the share is everything."""
        if self.total == 1:
            return None
        return f"(hashtextextended(aggregateid, 0) & {2**63 - 1}) % {self.total} = {self.number}"

    def describe(self) -> str:
        """In words."""
        return "all conversations" if self.total == 1 else f"share {self.number + 1} of {self.total} conversations"


def read_share(row_filter: str | None) -> Share | None:
    """The share that a publication's row filter means, as PostgreSQL writes it back; None if it means another thing."""
    if row_filter is None:
        return Share(0, 1)
    found = _SHARE.search(row_filter)
    return Share(int(found[2]), int(found[1])) if found and "hashtextextended(aggregateid" in row_filter else None


def connector_files(first: ConnectorFile, total: int) -> list[ConnectorFile]:
    """The connectors of `total` outboxes: the first one as it is declared, the others like it but for what must be
    their own. Raises Unsplittable."""
    if not 1 <= total <= MOST:
        raise Unsplittable(f"There can be 1 to {MOST} outboxes, not {total}.")
    zero = Outbox(0)
    own = {"name": zero.connector, "slot.name": zero.slot, "publication.name": zero.slot}
    wrong = [key for key, value in own.items() if first.config.get(key) != value]
    if wrong or heartbeat_id(first.config) != zero.heartbeat_id:
        raise Unsplittable(
            f"{first.name} is not the connector of the first outbox: it must have the name {zero.connector}, the slot"
            f" and the publication {zero.slot}, and beat the heartbeat {zero.heartbeat_id}."
        )
    return [first, *(_of(first, Outbox(number)) for number in range(1, total))]


def _of(first: ConnectorFile, outbox: Outbox) -> ConnectorFile:
    beat = re.sub(r"\(\s*1\s*\)", f"({outbox.heartbeat_id})", first.config["heartbeat.action.query"], count=1)
    config = {
        **first.config,
        "name": outbox.connector,
        "slot.name": outbox.slot,
        "publication.name": outbox.slot,
        "heartbeat.action.query": beat,
        # Their topics are the same, so only this tells their metrics apart in a worker that runs several.
        "custom.metric.tags": f"outbox={outbox.number}",
    }
    return replace(first, name=outbox.connector, config=config)


def missing_and_surplus(present: Sequence[Outbox], total: int) -> tuple[list[Outbox], list[Outbox]]:
    """The outboxes to be made, and those to be given up, so that there are `total`."""
    wanted = [Outbox(number) for number in range(total)]
    return [each for each in wanted if each not in present], [each for each in present if each not in wanted]
