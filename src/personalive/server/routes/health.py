"""Routes for operators: liveness, readiness and metrics (docs/cluster.md)."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from personalive.live.errors import RefusedError
from personalive.server.dependencies import AppJobs, AppSessions, require_token
from personalive.server.monitoring import metrics_text
from personalive.server.schemas import Health

router = APIRouter(tags=["Health"])


@router.get("/healthz")
async def live(sessions: AppSessions) -> Health:
    """Answer while the process works; 503 where only a restart helps."""
    if sessions.worker.state == "failed":
        raise RefusedError("not_ready", sessions.worker.message)
    return Health(status="live")


@router.get("/readyz")
async def ready(sessions: AppSessions) -> Health:
    """Answer while new sessions can be opened: the model is loaded and warm, and the server is not draining."""
    sessions.check_ready()
    return Health(status="ready")


@router.get(
    "/metrics",
    dependencies=[Depends(require_token)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(sessions: AppSessions, jobs: AppJobs) -> Response:
    """Return metrics for Prometheus."""
    return Response(metrics_text(sessions, jobs), media_type=CONTENT_TYPE_LATEST)
