"""All boards. The order is that of the path of a message, after the promise that it is to keep."""

from __future__ import annotations

from infra.grafana.boards.cdc import CDC
from infra.grafana.boards.channels import CHANNELS
from infra.grafana.boards.delivery import DELIVERY
from infra.grafana.boards.ingest import INGEST
from infra.grafana.boards.machine import MACHINE
from infra.grafana.boards.promise import PROMISE
from infra.grafana.boards.streams import STREAMS
from infra.grafana.model import Board

BOARDS: tuple[Board, ...] = (PROMISE, INGEST, CDC, STREAMS, DELIVERY, CHANNELS, MACHINE)
