"""A real server around a small model, on a free port, and a client that speaks its protocol."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx2
import numpy as np
import simplejpeg
import uvicorn
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from personalive.engine.engine import Engine
from personalive.live.config import LiveConfig
from personalive.live.frames import FinishedHeader
from personalive.live.worker import Worker
from personalive.server.app import create_app
from personalive.server.auth import Auth
from personalive.server.config import ServerConfig
from personalive.server.run import GracefulServer
from personalive.server.wire import DrivingHeader, pack_driving, unpack_finished
from support.waiting import PATIENCE_S, Patience, wait_until


@contextmanager
def running(
    load: Callable[[], Engine],
    *,
    token: str | None = None,
    origins: Iterable[str] = (),
    live: LiveConfig | None = None,
    server: ServerConfig | None = None,
) -> Iterator[LiveServer]:
    """A server that is ready; everything has ended afterwards."""
    worker = Worker(lambda _: load(), center_fallback=True, live=live, limits=server)
    app = create_app(worker, Auth(token, origins, config=server), live=live, server=server)
    limit = (server or ServerConfig()).frame_bytes + 1024
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio", ws_max_size=limit
    )
    uvicorn_server = GracefulServer(config, app)
    thread = threading.Thread(target=uvicorn_server.run)
    thread.start()
    try:
        wait_until(lambda: uvicorn_server.started and bool(uvicorn_server.servers))
        port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
        with ExitStack() as clients:
            found = LiveServer(f"http://127.0.0.1:{port}", app, worker, token, clients)
            found.runner = uvicorn_server
            wait_until(lambda: worker.state != "loading")
            yield found
    finally:
        uvicorn_server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class LiveServer:
    """Its address, and what is behind it."""

    runner: uvicorn.Server

    def __init__(self, address: str, app: Any, worker: Worker, token: str | None, clients: ExitStack) -> None:
        """
        Args:
            clients: closes every client of the server.
        """
        self.address, self.app, self.worker, self.clients = address, app, worker, clients
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = clients.enter_context(httpx2.Client(base_url=address, headers=headers, timeout=PATIENCE_S))

    def stop(self) -> None:
        """Begin to end, as by Ctrl-C."""
        self.runner.should_exit = True

    def open(self, **body: Any) -> LiveClient:
        """A session and its client."""
        answer = self.http.post("/api/sessions", json=body)
        assert answer.status_code == 201, answer.text
        return LiveClient(self, answer.json())


class LiveClient:
    """One session: HTTP with its key, and a socket."""

    def __init__(self, server: LiveServer, opened: dict[str, Any]) -> None:
        self.server, self.opened = server, opened
        self.path = f"/api/sessions/{opened['id']}"

    def request(self, method: str, path: str = "", *, key: str | None = None, **named: Any) -> httpx2.Response:
        """A request at the session's own address."""
        headers = {"Authorization": f"Bearer {key or self.opened['key']}", **named.pop("headers", {})}
        return self.server.http.request(method, self.path + path, headers=headers, **named)

    def put_portrait(self, image: np.ndarray) -> httpx2.Response:
        """Upload an image."""
        return self.request("PUT", "/portrait", content=png(image))

    def connect(self, key: str | None = None, query: str = "", **named: Any) -> Socket:
        """A socket of the session."""
        address = self.server.address.replace("http", "ws") + self.path + "/socket" + query
        names: Any = ["personalive.v1", f"key.{key or self.opened['key']}"]
        opened = connect(address, subprotocols=names, max_size=None, max_queue=None, close_timeout=1, **named)
        return Socket(self.server.clients.enter_context(opened))


class Socket:
    """Sends driving frames, sorts what comes back."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[dict[str, Any]] = []
        self.frames: list[tuple[FinishedHeader, np.ndarray]] = []
        self.answers = True  # whether finished frames are acknowledged
        self._sequence = 0

    def send_frame(self, image: np.ndarray, capture_us: int | None = None) -> int:
        """One driving frame; returns its number."""
        self._sequence += 1
        now = time.monotonic_ns() // 1000 if capture_us is None else capture_us
        self.connection.send(pack_driving(DrivingHeader(self._sequence, now), jpeg(image)))
        return self._sequence

    def receive(self, timeout_s: float = PATIENCE_S) -> None:
        """One message, into ``messages`` or ``frames``."""
        message = self.connection.recv(timeout_s)
        if isinstance(message, str):
            self.messages.append(json.loads(message))
            return
        header, data = unpack_finished(message)
        self.frames.append((header, simplejpeg.decode_jpeg(data)))
        if self.answers:
            with suppress(ConnectionClosed):  # the server may have said goodbye right behind this frame
                self.connection.send(json.dumps({"type": "ack", "index": header.index}))

    def receive_until(self, condition: Callable[[], Any]) -> Any:
        """Receive until a condition is true, and return its value; frames count as progress."""
        patience = Patience(lambda: len(self.frames))
        while not (found := condition()):
            self.receive(patience.check())
        return found

    def drive(self, images: Iterator[np.ndarray], count: int, every_s: float = 0.02) -> None:
        """Send frames at a camera's pace and receive until ``count`` frames more are here."""
        wanted, next_s = len(self.frames) + count, time.monotonic()
        patience = Patience(lambda: len(self.frames))
        while len(self.frames) < wanted:
            patience.check()
            self.send_frame(next(images))
            next_s += every_s
            self.drain(next_s)

    def drain(self, until_s: float) -> None:
        """Receive what comes until then."""
        while (left := until_s - time.monotonic()) > 0:
            try:
                self.receive(left)
            except TimeoutError:
                return

    def message(self, kind: str) -> dict[str, Any] | None:
        """The newest of a kind."""
        return next((m for m in reversed(self.messages) if m["type"] == kind), None)

    def close(self) -> None:
        """Leave."""
        self.connection.close()

    def tear(self) -> None:
        """Be gone without a word, as where a cable is pulled."""
        self.connection.socket.shutdown(socket.SHUT_RDWR)


def jpeg(image: np.ndarray) -> bytes:
    """As a browser sends it."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90)


def png(image: np.ndarray) -> bytes:
    """As a person uploads it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
