"""The FastAPI app: routes, the page, middleware, and startup and shutdown of everything behind them."""

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
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from personalive import __version__
from personalive.errors import PersonaLiveError
from personalive.live.config import LiveConfig
from personalive.live.errors import RefusedError
from personalive.live.worker import Worker
from personalive.server import routes
from personalive.server.auth import Auth
from personalive.server.config import ServerConfig
from personalive.server.errors import error_response
from personalive.server.jobs import JobQueue
from personalive.server.schemas import ErrorAnswer, Message
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
_READABLE_HEADERS = ("Location", "Link", "Accept-Patch", "Retry-After")  # by pages of other origins
_REFUSED: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorAnswer, "description": "Refused."}}


def create_app(
    worker: Worker, auth: Auth, *, live: LiveConfig | None = None, server: ServerConfig | None = None
) -> FastAPI:
    """Build the server's app around a worker that has not been started yet."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="personalive-") as folder:
            sessions = app.state.sessions = SessionRegistry(worker, Path(folder), live=live, server=server)
            connections = app.state.connections = Connections(sessions)
            jobs = app.state.jobs = JobQueue(worker, Path(folder), sessions.server)
            worker.start()
            tasks = [asyncio.create_task(work()) for work in (sessions.watch, jobs.watch, jobs.run)]
            try:
                yield
            finally:
                sessions.close_all("the server is shutting down")
                jobs.close_all()
                await connections.close_all()
                await asyncio.to_thread(worker.stop)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(title="PersonaLive", version=__version__, lifespan=lifespan, redoc_url=None, responses=_REFUSED)
    app.state.auth = auth
    for router in routes.ROUTERS:
        app.include_router(router)
    add_error_handlers(app)
    add_middleware(app, auth)
    _add_page(app)

    @app.webhooks.post("message", response_model=None)
    def message(body: Message) -> None:
        """Text message that the server sends over a WebSocket of a session."""

    return app


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in one shape, over HTTP and over WebSockets that are not open yet."""

    @app.exception_handler(PersonaLiveError)
    async def refused(connection: HTTPConnection, error: PersonaLiveError) -> JSONResponse | None:
        known = error if isinstance(error, RefusedError) else RefusedError("unusable_input", str(error))
        if isinstance(connection, WebSocket):
            return await refuse(connection, known)
        return error_response(known)

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(WebSocketRequestValidationError)
    async def invalid(
        connection: HTTPConnection, error: RequestValidationError | WebSocketRequestValidationError
    ) -> JSONResponse | None:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = "the body must be a JSON object" if place == "body" else f"{place}: {first['msg']}"
        return await refused(connection, RefusedError("bad_request", message))

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        kind = "not_found" if error.status_code == 404 else "bad_request"
        body = RefusedError(kind, str(error.detail)).body()
        return JSONResponse(body, error.status_code, headers=error.headers)


def add_middleware(app: FastAPI, auth: Auth) -> None:
    """Check origin, rate and body before every route, and add headers after; CORS around both."""

    @app.middleware("http")
    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            auth.check_origin(request)
            if request.url.path.startswith("/api/"):
                auth.check_rate(request)
                auth.check_body(request)
            response = await call_next(request)
        except RefusedError as error:
            response = error_response(error)
        except Exception as error:  # noqa: BLE001 (the client gets a typed answer, the log the traceback)
            _LOG.exception("a request failed", exc_info=error)
            response = error_response(RefusedError("internal", "an unexpected fault of the server; see its log"))
        is_docs = request.url.path in ("/docs", "/openapi.json")  # its page comes from elsewhere
        for name, value in _HEADERS.items():
            if not is_docs:
                response.headers.setdefault(name, value)
        return response

    app.add_middleware(
        CORSMiddleware,
        allow_origins=auth.origins,
        allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=("Authorization",),  # and Content-Type, which it always allows
        expose_headers=_READABLE_HEADERS,
    )


def _add_page(app: FastAPI) -> None:
    for path, name in {"/": "index.html", "/view": "view.html"}.items():
        app.add_api_route(path, _file_route(STATIC / name), include_in_schema=False)
    for kind, suffix in (("text/javascript", ".js"), ("image/svg+xml", ".svg"), ("text/css", ".css")):
        mimetypes.add_type(kind, suffix)  # some machines' registries have others, which browsers refuse
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))


def _file_route(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(path, media_type="text/html")

    return page
