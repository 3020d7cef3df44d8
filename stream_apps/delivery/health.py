"""Health: whether the process lives, whether it can answer reads, and its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.problems import ProblemError
from stream_apps.delivery.errors import problems
from stream_apps.delivery.state import Delivery, State
from stream_apps.delivery.tables import TablesUnavailable
from stream_apps.log_reader import LogUnavailable

router = APIRouter(tags=["operations"])


class NotReady(ProblemError):
    """Neither Redis nor Postgres can be reached."""

    code, title, status = "not-ready", "Not ready", 503


@router.get("/healthz", summary="Is the process alive?")
async def get_health() -> dict[str, str]:
    """Cheap, and true whatever else is down."""
    return {"status": "alive"}


@router.get("/readyz", summary="Can reads be answered?", responses=problems(NotReady))
async def get_readiness(delivery: Delivery) -> dict[str, str]:
    """Ready as long as Redis or Postgres answers: each alone can serve most reads, and an instance that is taken out
    of service for the loss of one of them would serve none. The answer says which of the two are there."""
    redis, postgres = await _is_redis_up(delivery), await _is_postgres_up(delivery)
    if not redis and not postgres:
        raise NotReady("Neither Redis nor Postgres can be reached.", headers={"Retry-After": "1"})
    return {
        "status": "ready",
        "redis": "up" if redis else "down",
        "postgres": "up" if postgres else "down",
    }


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def get_metrics(delivery: Delivery) -> Response:
    """The text exposition format of Prometheus."""
    return Response(generate_latest(delivery.registry), media_type=CONTENT_TYPE_LATEST)


async def _is_redis_up(delivery: State) -> bool:
    try:
        await delivery.tables.ping()
    except TablesUnavailable:
        return False
    return True


async def _is_postgres_up(delivery: State) -> bool:
    try:
        await delivery.log.ping()
    except LogUnavailable:
        return False
    return True
