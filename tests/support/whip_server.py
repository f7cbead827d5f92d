"""WebRTC server around the small model, on a free port of this machine, for clients that speak real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from personalive.engine.engine import Engine
from personalive.live.config import LiveConfig
from personalive.live.session import Session
from personalive.live.worker import Worker
from personalive.server.app import add_error_handlers
from personalive.server.auth import Auth
from personalive.server.config import ServerConfig
from personalive.server.routes import webrtc
from personalive.server.sessions import SessionRegistry
from personalive.server.webrtc.connections import Connections
from support.waiting import PATIENCE_S, wait_until


@dataclass(frozen=True)
class Answer:
    """Answer to an HTTP request."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def kind(self) -> str | None:
        """Kind of the refusal."""
        return json.loads(self.body)["error"]["kind"] if self.status >= 400 else None


class LiveServer:
    """Address of the server, and access to its event loop."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.app, self.port = app, port

    @property
    def sessions(self) -> SessionRegistry:
        return self.app.state.sessions

    @property
    def connections(self) -> Connections:
        return self.app.state.connections

    def inside(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine function on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(_awaited(work), self.app.state.loop).result(PATIENCE_S)

    def open(self, portrait: Any = None) -> Session:
        """Open a session, with a portrait."""

        async def begin() -> Session:
            session = self.sessions.open(None)
            if portrait is not None:
                await session.run_on_worker(lambda stream: stream.set_portrait(portrait, session.controls))
            return session

        return self.inside(begin)

    def close(self, session: Session) -> None:
        """End a session as its owner would."""

        async def end() -> None:
            self.sessions.close(session, "test")

        self.inside(end)

    def tasks(self) -> set[str]:
        """Return names of the coroutines that run on the server's event loop."""

        async def names() -> set[str]:
            every = asyncio.all_tasks() - {asyncio.current_task()}
            return {getattr(task.get_coro(), "__qualname__", "?") for task in every}

        return self.inside(names)

    def request(
        self, method: str, path: str, body: str | bytes = b"", *, key: str = "", media_type: str = "", **headers: str
    ) -> Answer:
        """Send an HTTP request and wait for its answer."""
        given = {"Authorization": f"Bearer {key}"} if key else {}
        given |= {"Content-Type": media_type} if media_type else {}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, given | headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


@contextmanager
def live_server(
    engine: Engine, folder: Path, *, live: LiveConfig | None = None, server: ServerConfig | None = None
) -> Iterator[LiveServer]:
    """Run a server in threads of its own until the block ends."""
    worker = Worker(lambda _: engine, center_fallback=True, live=live, limits=server)
    app = _app(worker, folder, live, server)
    runner = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="warning", ws="none"))
    thread = threading.Thread(target=runner.run, name="test-server")
    thread.start()
    try:
        wait_until(lambda: runner.started and worker.state == "ready")
        yield LiveServer(app, runner.servers[0].sockets[0].getsockname()[1])
    finally:
        runner.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def _app(worker: Worker, folder: Path, live: LiveConfig | None, server: ServerConfig | None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.loop = asyncio.get_running_loop()
        sessions = app.state.sessions = SessionRegistry(worker, folder, live=live, server=server)
        app.state.connections = Connections(sessions)
        worker.start()
        yield
        await app.state.connections.close_all()
        sessions.close_all("the server is shutting down")
        await asyncio.to_thread(worker.stop)

    app = FastAPI(lifespan=lifespan)
    app.state.auth = Auth(None)
    app.include_router(webrtc.router)
    add_error_handlers(app)
    return app
