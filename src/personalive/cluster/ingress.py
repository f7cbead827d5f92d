"""Ingress of a cluster: one address for all replicas. A session and a job stay with their replica."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.requests import HTTPConnection

from personalive.cluster.config import ServeClusterConfig
from personalive.cluster.links import Links
from personalive.cluster.proxy import SocketRelay, fetch, forward
from personalive.cluster.table import Replica, Table
from personalive.live.errors import RefusedError
from personalive.live.session import SavedSession
from personalive.server.app import add_error_handlers, add_middleware
from personalive.server.auth import Auth, check_key, subprotocol_key
from personalive.server.config import ServerConfig
from personalive.server.dependencies import GivenKey, check_socket, require_token
from personalive.server.schemas import Health, OpenSession, SessionCounts
from personalive.server.uploads import receive

_METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "HEAD"]
_TOKEN = [Depends(require_token)]
_SOCKET = [Depends(check_socket)]


class Ingress:
    """State of the ingress."""

    def __init__(self, secret: str, server: ServerConfig, cluster: ServeClusterConfig, folder: Path) -> None:
        """Make it on the event loop.

        Args:
            secret: token of the replicas.
            folder: for portraits.
        """
        self.server, self.cluster, self.folder = server, cluster, folder
        self.table = Table(server, cluster)
        self.http = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
            connector=aiohttp.TCPConnector(limit=0),
        )
        self.links = Links(self.table, self.http, secret, folder)

    async def close(self) -> None:
        """End all links and connections."""
        await self.links.close()
        await self.http.close()

    async def forward(self, request: Request, replica: Replica, **options: Any) -> Response:
        """See ``proxy.forward``."""
        return await forward(self.http, request, replica, **options)

    async def fetch(self, request: Request, replica: Replica, **options: Any) -> Response:
        """See ``proxy.fetch``."""
        return await fetch(self.http, request, replica, **options)

    async def replica_text(self, replica: Replica, path: str) -> str:
        """Return a replica's answer to GET; empty where it does not answer."""
        try:
            async with self.http.get(replica.url + path, headers=self.links.authorization) as answer:
                return await answer.text() if answer.ok else ""
        except (aiohttp.ClientError, OSError):
            return ""


async def get_ingress(connection: HTTPConnection) -> Ingress:
    """Return the app's ingress."""
    return connection.app.state.ingress


AppIngress = Annotated[Ingress, Depends(get_ingress)]
router = APIRouter()


@router.get("/healthz")
async def live() -> Health:
    """Answer while the ingress works."""
    return Health(status="live")


@router.get("/readyz")
async def ready(ingress: AppIngress) -> Health:
    """Answer while a replica takes new sessions."""
    if ingress.table.least_loaded() is None:
        raise ingress.table.no_replica()
    return Health(status="ready")


@router.get("/metrics", dependencies=_TOKEN)
async def metrics(ingress: AppIngress) -> Response:
    """Return the metrics of the cluster, and those of every replica with its name as a label."""
    replicas = list(ingress.table.replicas.values())
    texts = await asyncio.gather(*(ingress.replica_text(replica, "/metrics") for replica in replicas))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ClusterCollector(ingress.table, {r.id: text for r, text in zip(replicas, texts, strict=True)}))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _ClusterCollector(Collector):
    """Metrics of the whole, and of each replica from its text."""

    def __init__(self, table: Table, texts: dict[str, str]) -> None:
        self._table, self._texts = table, texts

    def collect(self) -> Iterator[Metric]:
        table = self._table
        replicas = list(table.replicas.values())
        for name, about, value in (
            ("replicas", "Replicas that are linked", len(replicas)),
            ("replicas_open", "Replicas that take new sessions", sum(replica.is_open for replica in replicas)),
            ("sessions", "Open sessions", len(table.sessions)),
            ("session_limit", "Sessions that all open replicas keep up with", table.limit),
            ("waiting_clients", "Clients in the queue", len(table.tickets)),
        ):
            yield GaugeMetricFamily(f"personalive_cluster_{name}", about, value=value)
        yield CounterMetricFamily("personalive_cluster_sessions_moved", "Moved to another replica", value=table.moved)
        yield CounterMetricFamily("personalive_cluster_sessions_lost", "Lost with their replica", value=table.lost)
        families: dict[str, Metric] = {}
        for ident, text in self._texts.items():
            for found in text_string_to_metric_families(text):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.samples.append(sample._replace(labels={**sample.labels, "replica": ident}))
        yield from families.values()


@router.get("/api/status")
async def status(request: Request, ingress: AppIngress) -> Response:
    """Return the status of a replica, with the sessions of all."""
    table = ingress.table
    text = await ingress.replica_text(table.any_replica(), request.url.path)
    if not text:
        raise table.no_replica()
    counts = SessionCounts(open=len(table.sessions), limit=table.limit, waiting=len(table.tickets))
    return JSONResponse(json.loads(text) | {"sessions": counts.model_dump()})


@router.post("/api/sessions", dependencies=_TOKEN)
async def open_session(request: Request, ingress: AppIngress, body: OpenSession) -> Response:
    """Open a session on the least loaded replica; a full cluster refuses with a ticket."""
    table = ingress.table
    replica = table.admit(body.ticket)
    try:
        content = body.model_copy(update={"ticket": None}).model_dump_json().encode()
        answer = await ingress.fetch(request, replica, body=content, authorization=ingress.links.authorization)
        if answer.status_code == 201:
            opened = json.loads(bytes(answer.body))
            identity = {name: opened[name] for name in ("id", "key", "view_key")}
            first = {"controls": {"seed": body.seed}, "playing": True, "generation": 0, "index": 0}
            table.add(SavedSession(**identity, **first), replica)
    finally:
        replica.opening -= 1
    return answer


@router.delete("/api/sessions/{ident}")
async def close_session(request: Request, ingress: AppIngress, ident: str) -> Response:
    """End a session."""
    placed = ingress.table.find(ident)
    answer = await ingress.fetch(request, await placed.wait_for_home())
    if answer.status_code == 204:
        ingress.table.remove(placed)
    return answer


@router.put("/api/sessions/{ident}/portrait")
async def put_portrait(
    request: Request, ingress: AppIngress, ident: str, key: GivenKey, gallery: str | None = None
) -> Response:
    """Set the portrait, and keep it for the session's next replica."""
    placed = ingress.table.find(ident)
    check_key(key, placed.saved.key)
    portrait: Path | str | None = gallery
    try:
        if gallery is None:
            portrait = await receive(request, ingress.folder, ingress.server.portrait_bytes, "portrait")
        content = await asyncio.to_thread(portrait.read_bytes) if isinstance(portrait, Path) else b""
        answer = await ingress.fetch(request, await placed.wait_for_home(), body=content)
        if answer.status_code == 200 and not placed.ended:
            placed.portrait, portrait = portrait, placed.portrait
    finally:
        if isinstance(portrait, Path):  # refused, or the one before
            portrait.unlink(missing_ok=True)
    return answer


@router.api_route("/api/sessions/{ident}", methods=_METHODS)
@router.api_route("/api/sessions/{ident}/{rest:path}", methods=_METHODS)
async def session_request(request: Request, ingress: AppIngress, ident: str) -> Response:
    """Pass a request on to its session's replica."""
    return await ingress.forward(request, await ingress.table.find(ident).wait_for_home())


@router.websocket("/api/sessions/{ident}/socket", dependencies=_SOCKET)
async def session_socket(socket: WebSocket, ingress: AppIngress, ident: str) -> None:
    """Relay a session's socket."""
    await SocketRelay(ingress.http, socket, ingress.table.find(ident), ingress.cluster).run()


@router.websocket("/api/view/socket", dependencies=_SOCKET)
async def view_socket(socket: WebSocket, ingress: AppIngress) -> None:
    """Relay a viewer's socket."""
    placed = ingress.table.find_view(subprotocol_key(socket))
    await SocketRelay(ingress.http, socket, placed, ingress.cluster).run()


@router.post("/api/jobs", dependencies=_TOKEN)
async def open_job(request: Request, ingress: AppIngress) -> Response:
    """Open a job on the replica with the fewest."""
    table, content = ingress.table, await request.body()
    replica = table.fewest_jobs()
    answer = await ingress.fetch(request, replica, body=content, authorization=ingress.links.authorization)
    if answer.status_code == 201:
        table.jobs[json.loads(bytes(answer.body))["id"]] = replica
    return answer


@router.api_route("/api/jobs/{ident}", methods=_METHODS)
@router.api_route("/api/jobs/{ident}/{rest:path}", methods=_METHODS)
async def job_request(request: Request, ingress: AppIngress, ident: str) -> Response:
    """Pass a request on to its job's replica."""
    if (replica := ingress.table.jobs.get(ident)) is None:
        raise RefusedError("not_found", "no such job: it has expired, its device was lost, or the address is wrong")
    return await ingress.forward(request, replica)


@router.put("/api/credentials", dependencies=_TOKEN)
async def put_credentials(request: Request, ingress: AppIngress) -> Response:
    """Sign a recording on any replica."""
    replica = ingress.table.any_replica()
    return await ingress.forward(request, replica, authorization=ingress.links.authorization)


@router.get("/{path:path}")
async def public(request: Request, ingress: AppIngress, path: str) -> Response:
    """Answer what every replica answers alike: the page and its parts, the gallery, the API's description."""
    if path.startswith("cluster"):
        raise RefusedError("not_found", "Not Found")
    return await ingress.forward(request, ingress.table.any_replica(), authorization={})


def build_app(auth: Auth, secret: str, server: ServerConfig, cluster: ServeClusterConfig) -> FastAPI:
    """Build the app; its state has the ``ingress`` while it runs.

    Args:
        secret: token of the replicas.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="personalive-") as folder:
            ingress = app.state.ingress = Ingress(secret, server, cluster, Path(folder))
            try:
                yield
            finally:
                await ingress.close()

    app = FastAPI(title="PersonaLive", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.auth = auth
    add_error_handlers(app)
    add_middleware(app, auth)
    app.include_router(router)
    return app
