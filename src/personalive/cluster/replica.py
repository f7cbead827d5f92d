"""Replica of a cluster: the live server as it is, in a process of Ray's, and its link to the ingress."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress

import numpy as np
import simplejpeg
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.responses import Response
from starlette.websockets import WebSocketDisconnect

from personalive.cluster.config import ServeClusterConfig
from personalive.cluster.table import ReplicaState
from personalive.errors import InputError
from personalive.live.session import SavedSession
from personalive.live.worker import Worker
from personalive.media.still import png_bytes
from personalive.server.config import ServerConfig
from personalive.server.dependencies import AppJobs, AppSessions, check_socket, require_token
from personalive.server.jobs import JobQueue
from personalive.server.monitoring import log_as
from personalive.server.run import GracefulServer, ServeOptions, build_app, server_config, uvicorn_config
from personalive.server.sessions import SessionRegistry

_LOG = logging.getLogger(__name__)
_ROUND_S = 0.1
_JPEG_QUALITY = 95  # of a portrait
NO_RATE_LIMIT = {"request_burst": 10**9, "requests_per_s": 1e9}  # the ingress counts each client's requests

router = APIRouter(prefix="/cluster", include_in_schema=False)


@router.post("/sessions", status_code=204, dependencies=[Depends(require_token)])
async def restore(sessions: AppSessions, saved: SavedSession) -> None:
    """Go on with a session that another replica had."""
    sessions.restore(saved)


@router.get("/sessions/{ident}/portrait", dependencies=[Depends(require_token)])
async def portrait(sessions: AppSessions, ident: str) -> Response:
    """Return a session's portrait as a file, for an ingress that does not have it; 204 where there is none."""
    image = await sessions.find(ident).run_on_worker(lambda stream: stream.image)
    if image is None:
        return Response(status_code=204)
    content = await asyncio.to_thread(portrait_file, image, sessions.server.portrait_bytes)
    return Response(content, media_type="application/octet-stream")


def portrait_file(image: np.ndarray, limit_bytes: int) -> bytes:
    """Return (H, W, 3) uint8 as PNG, or where the next replica would refuse so large a file, as JPEG."""
    content = png_bytes(image)
    if len(content) <= limit_bytes:
        return content
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=_JPEG_QUALITY, colorsubsampling="444")


@router.websocket("/link", dependencies=[Depends(check_socket), Depends(require_token)])
async def link(socket: WebSocket, sessions: AppSessions, jobs: AppJobs) -> None:
    """Send this replica's state again and again; receive the number of clients that wait, and the order to stop."""
    await socket.accept()
    config: ServeClusterConfig = socket.app.state.cluster

    async def send() -> None:
        while True:
            await socket.send_text(_state(sessions, jobs).model_dump_json())
            await asyncio.sleep(config.state_interval_s)

    sending = asyncio.create_task(send())
    try:
        while True:
            message = await socket.receive_json()
            socket.app.state.waiting = message["waiting"]
            if message["stop"]:
                sessions.close_all("the server is shutting down")
                jobs.close_all()
    except (WebSocketDisconnect, RuntimeError):
        return
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def add_link(app: FastAPI, config: ServeClusterConfig) -> None:
    """Add to a live server what the ingress asks of it."""
    app.include_router(router)
    app.state.cluster, app.state.waiting = config, 0


def _state(sessions: SessionRegistry, jobs: JobQueue) -> ReplicaState:
    worker = sessions.worker
    return ReplicaState(
        ready=worker.state == "ready",
        draining=sessions.draining,
        step_s=worker.step_s,
        limit=worker.session_limit,
        jobs=[job.id for job in jobs],
        sessions=[session.save() for session in sessions if session.ended is None],
    )


class LiveReplica:
    """Deployment of Ray Serve: one live server, on one device."""

    async def __init__(self, options: ServeOptions, secret: str, threads: int, config: ServeClusterConfig) -> None:
        """Start the server and wait until its model is loaded and warm.

        Raises:
            InputError: the model cannot be loaded.
        """
        import ray  # noqa: PLC0415 (an extra, and slow)
        from ray import serve  # noqa: PLC0415

        log_as(options.log_format)
        context = serve.get_replica_context()
        self._id = context.replica_id.unique_id
        self._application, self._config = context.app_name, config
        settings = ServerConfig(**{**vars(server_config(options)), **NO_RATE_LIMIT})
        self._app: FastAPI = build_app(options, secret, settings, threads=threads)
        add_link(self._app, config)
        host = ray.util.get_node_ip_address()
        self._server = GracefulServer(uvicorn_config(self._app, options, host=host, port=0), self._app)
        self._thread = threading.Thread(target=self._server.run, name="personalive-server", daemon=True)
        self._thread.start()
        while not (self._server.started and self._app.state.sessions.worker.state == "ready"):
            self.check_health()
            await asyncio.sleep(_ROUND_S)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self._url = f"http://{host}:{port}"
        self._joining = asyncio.create_task(self._join())

    def check_health(self) -> None:
        """Raise where only a new process helps: Ray Serve then starts one."""
        if not self._thread.is_alive():
            raise RuntimeError("the live server of this replica has ended")
        if self._server.started and self._worker.state == "failed":
            raise InputError(self._worker.message)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what ``wanted_replicas`` reads."""
        state = self._app.state
        return {"sessions": len(state.sessions), "limit": self._worker.session_limit, "waiting": state.waiting}

    async def __del__(self) -> None:
        """Drain: take no new sessions, and wait until those that are here have moved and the jobs are done.

        Ray Serve calls it when it removes the replica, and ends the process afterwards.
        """
        sessions, jobs = self._app.state.sessions, self._app.state.jobs
        sessions.draining = True
        while len(sessions) or list(jobs):
            await asyncio.sleep(_ROUND_S)
        self._joining.cancel()
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join)

    @property
    def _worker(self) -> Worker:
        return self._app.state.sessions.worker

    async def _join(self) -> None:
        """Make this replica known to the ingress again and again, which may not run yet, or no longer."""
        from ray import serve  # noqa: PLC0415

        while True:
            with suppress(Exception):
                ingress = serve.get_deployment_handle("Ingress", self._application)
                await ingress.join.remote(self._id, self._url)
            await asyncio.sleep(self._config.join_interval_s)
