"""The app: routes, the page, and the order in which everything starts and ends."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from personalive import __version__
from personalive.errors import PersonaLiveError
from personalive.live.config import LiveConfig
from personalive.live.errors import RefusedError
from personalive.live.worker import Worker
from personalive.server.auth import Auth
from personalive.server.config import ServerConfig
from personalive.server.errors import STATUS
from personalive.server.jobs import JobQueue
from personalive.server.routes import jobs as job_routes
from personalive.server.routes import media as material
from personalive.server.routes import sessions as routes
from personalive.server.routes import webrtc
from personalive.server.sessions import SessionRegistry
from personalive.server.webrtc.connections import Connections
from personalive.server.websocket import refuse

_LOG = logging.getLogger(__name__)
STATIC = Path(str(resources.files("personalive"))) / "server" / "static"
_HEADERS = {  # of every answer
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(
    worker: Worker, doors: Auth, *, live: LiveConfig | None = None, server: ServerConfig | None = None
) -> FastAPI:
    """The server around a worker that has not been started yet."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="personalive-") as folder:
            desk = app.state.desk = SessionRegistry(worker, Path(folder), live=live, server=server)
            peers = app.state.peers = Connections(desk)
            jobs = app.state.jobs = JobQueue(worker, Path(folder), desk.server)
            worker.start()
            tasks = [asyncio.create_task(work()) for work in (desk.watch, jobs.watch, jobs.work)]
            try:
                yield
            finally:
                desk.close_all("the server is shutting down")
                jobs.stop()
                await peers.close_all()
                await asyncio.to_thread(worker.stop)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(title="PersonaLive", version=__version__, lifespan=lifespan, redoc_url=None)
    app.state.doors = doors
    app.include_router(routes.routes)
    app.include_router(material.routes)
    app.include_router(job_routes.routes)
    app.include_router(webrtc.routes)
    _answer_errors(app)
    _guard(app, doors)
    _serve_page(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Every error in one shape."""

    @app.exception_handler(PersonaLiveError)
    async def refused(request: Request, error: PersonaLiveError) -> JSONResponse:
        known = error if isinstance(error, RefusedError) else RefusedError("unusable_input", str(error))
        return _answer(known)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(_misunderstood(error.errors()[0]))

    @app.exception_handler(WebSocketRequestValidationError)
    async def invalid_socket(socket: WebSocket, error: WebSocketRequestValidationError) -> None:
        await refuse(socket, _misunderstood(error.errors()[0]))

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        kind = "not_found" if error.status_code == 404 else "bad_request"
        body = RefusedError(kind, str(error.detail)).body()
        return JSONResponse(body, error.status_code, headers=error.headers)


def _misunderstood(first: dict[str, Any]) -> RefusedError:
    place = ".".join(str(part) for part in first["loc"])
    return RefusedError("bad_request", f"{place}: {first['msg']}")


def _answer(error: RefusedError) -> JSONResponse:
    wait_s = error.more.get("retry_after_s")
    headers = {} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))}
    return JSONResponse(error.body(), STATUS[error.kind], headers=headers)


def _guard(app: FastAPI, doors: Auth) -> None:
    """Origin and rate before every route, headers and a typed answer after."""

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            doors.check_origin(request)
            if request.url.path.startswith("/api/"):
                doors.check_rate(request)
                doors.check_body(request)
            response = await call_next(request)
        except RefusedError as error:
            response = _answer(error)
        except Exception as error:  # noqa: BLE001 (the client gets a typed answer, the log the traceback)
            _LOG.exception("a request failed", exc_info=error)
            response = _answer(RefusedError("internal", "an unexpected fault of the server; see its log"))
        is_docs = request.url.path in ("/docs", "/openapi.json")  # its page comes from elsewhere
        for name, value in _HEADERS.items():
            if not is_docs:
                response.headers.setdefault(name, value)
        return response


def _serve_page(app: FastAPI) -> None:
    pages: dict[str, Any] = {"/": "index.html", "/view": "view.html"}
    for path, name in pages.items():
        app.add_api_route(path, _page(STATIC / name), include_in_schema=False)
    for kind, suffix in (("text/javascript", ".js"), ("image/svg+xml", ".svg"), ("text/css", ".css")):
        mimetypes.add_type(kind, suffix)  # some machines' registries have others, which browsers refuse
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))


def _page(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(path, media_type="text/html")

    return page
