"""Health: whether the process lives, whether it can accept messages and have them streamed, and its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_api.admission.ladder import SENTENCES
from ingest_api.admission.model import AdmissionState
from ingest_api.database import transaction
from ingest_api.errors import DatabaseUnavailable, problems
from ingest_api.state import Chat
from schemas.outboxes import NAME
from schemas.problems import ProblemError

router = APIRouter(tags=["operations"])

FIND_OBSTACLES = text("""
    SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = :publication) AS has_publication,
           (SELECT wal_status FROM pg_replication_slots WHERE slot_name = :slot) AS slot_status
""")


class NotReady(ProblemError):
    """Messages cannot be accepted safely now; `obstacles` says why."""

    code, title, status = "not-ready", "Not ready", 503


async def find_obstacles(engine: AsyncEngine, *, publication: str = NAME, slot: str = NAME) -> list[str]:
    """What keeps this API from being ready, in sentences; empty when nothing does."""
    try:
        async with transaction(engine) as connection:
            row = (await connection.execute(FIND_OBSTACLES, {"publication": publication, "slot": slot})).one()
    except DatabaseUnavailable:
        return ["The database cannot be reached."]
    obstacles = []
    if not row.has_publication:
        obstacles.append(f"The publication {publication} is missing: run python -m ingest_api.migrate.")
    if row.slot_status is None:
        obstacles.append(f"The replication slot {slot} is missing: what is written now would not be streamed.")
    elif row.slot_status == "lost":
        obstacles.append(f"The replication slot {slot} is lost: its WAL was removed.")
    return obstacles


@router.get("/healthz", summary="Is the process alive?")
async def get_health() -> dict[str, str]:
    """Cheap, and true whatever else is down."""
    return {"status": "alive"}


@router.get("/readyz", summary="Can messages be accepted?", responses=problems(NotReady))
async def get_readiness(chat: Chat) -> dict[str, str]:
    """Checks the database, the publication and the replication slot, and tells the step of the admission ladder."""
    obstacles = await find_obstacles(chat.engine)
    state = chat.gate.state  # once: the answer must not contradict itself
    admission = state.name.lower()
    if state >= AdmissionState.RED:
        obstacles.append(SENTENCES[state])
    if chat.gate.is_closed:
        obstacles.append("This process is about to end.")
    if obstacles:
        raise NotReady(" ".join(obstacles), headers={"Retry-After": "1"}, obstacles=obstacles, admission=admission)
    return {"status": "ready", "admission": admission}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def get_metrics(chat: Chat) -> Response:
    """The text exposition format of Prometheus."""
    return Response(generate_latest(chat.registry), media_type=CONTENT_TYPE_LATEST)
