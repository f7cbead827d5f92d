"""Ways to hold a live server still and look at it, so that tests wait for what happens and never for time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import numpy as np

from personalive.live.session import Session
from personalive.server.config import ServerConfig
from support.live_server import LiveClient, LiveServer, Socket
from support.waiting import PATIENCE_S, wait_until

# No rate limit that a test could run into, and as many sessions as asked for, however slow the machine.
GENEROUS = {"request_burst": 100_000, "requests_per_s": 1e5, "min_session_fps": 1e-3}


def generous(**settings: Any) -> ServerConfig:
    """Limits that no honest test meets, but for those given."""
    return ServerConfig(**{"max_sessions": 8, **GENEROUS, **settings})


def session_of(server: LiveServer, client: LiveClient) -> Session:
    """Session of a client, on the server's side."""
    return server.app.state.sessions.find(client.opened["id"])


@contextmanager
def held(server: LiveServer, client: LiveClient) -> Iterator[Session]:
    """The worker stands still between two chunks, so that all that is sent meanwhile is taken in at once."""
    session = session_of(server, client)
    reached, go = threading.Event(), threading.Event()

    def stand(_: Any) -> None:
        reached.set()
        go.wait(PATIENCE_S)

    standing = asyncio.run_coroutine_threadsafe(session.run_on_worker(stand), session.loop)
    try:
        assert reached.wait(PATIENCE_S)
        yield session
    finally:
        go.set()
        standing.result(PATIENCE_S)


def send_at_once(server: LiveServer, client: LiveClient, socket: Socket, images: Any, times_us: Any) -> None:
    """Driving frames that one chunk takes in together."""
    with held(server, client) as session:
        wanted = session.inbox.received + len(times_us)
        for image, time_us in zip(images, times_us, strict=True):
            socket.send_frame(image, time_us)
        wait_until(lambda: session.inbox.received == wanted)


def expect_error(answer: httpx2.Response, kind: str, status: int) -> str:
    """That it is refused as docs/protocol.md says; the message."""
    assert answer.status_code == status, answer.text
    return check_error(answer.json(), kind)


def check_error(body: dict[str, Any], kind: str) -> str:
    """That an error's message is one line for a person, without anything of the server's own."""
    error = body["error"]
    assert error["kind"] == kind, body
    message = error["message"]
    assert message
    assert "\n" not in message
    assert "/tmp" not in message, message
    assert "personalive-" not in message, message
    assert "Traceback" not in message
    return message


def turned(image: np.ndarray, count: int) -> list[np.ndarray]:
    """MakeImages that differ, but with the same colours, so that none looks like a cut."""
    return [np.ascontiguousarray(np.roll(image, (3 * place, 2 * place), (0, 1))) for place in range(1, count + 1)]


def errors_of(socket: Socket) -> list[dict[str, Any]]:
    """All that the socket was refused."""
    return [message for message in socket.messages if message["type"] == "error"]


def until_stats(socket: Socket, count: int = 2) -> None:
    """Receive until the worker has looked around ``count`` times more."""
    seen = len([m for m in socket.messages if m["type"] == "stats"])
    socket.receive_until(lambda: len([m for m in socket.messages if m["type"] == "stats"]) >= seen + count)


def exchange(socket: Socket, mark: float) -> None:
    """Receive until the server has answered all that was sent before."""
    socket.connection.send(json.dumps({"type": "ping", "at_ms": mark}))
    socket.receive_until(lambda: any(m.get("at_ms") == mark for m in socket.messages))
