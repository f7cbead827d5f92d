"""WebSocket of a session: driving frames in, finished frames and messages out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import simplejpeg
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from personalive.errors import InputError
from personalive.live.config import LiveConfig
from personalive.live.errors import RefusedError
from personalive.live.frames import DrivingFrame
from personalive.live.queues import AckWindow, Viewer
from personalive.live.session import Session
from personalive.server.auth import PROTOCOL
from personalive.server.config import ServerConfig
from personalive.server.wire import pack_finished, unpack_driving

CLOSE_REFUSED, CLOSE_ENDED = 4400, 4410
_MAX_REFUSALS = 20  # of one socket, before it is closed


async def refuse(socket: WebSocket, error: RefusedError) -> None:
    """Open a socket to send the reason, and close it."""
    await socket.accept(subprotocol=_subprotocol(socket))
    await socket.send_json(error.message())
    await socket.close(CLOSE_REFUSED, str(error)[:120])


async def serve_socket(
    socket: WebSocket, session: Session, role: str, *, frames: bool, live: LiveConfig, server: ServerConfig
) -> None:
    """Serve one socket until either side ends it.

    Args:
        role: "driver" or "viewer".
        frames: whether to send finished frames, or messages alone.
    """
    await socket.accept(subprotocol=_subprotocol(socket))
    session.connections += 1
    served = _SessionSocket(socket, session, role, live, server)
    work = [served.receive(), served.send_messages(), *([served.send_frames()] if frames else [])]
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        session.connections -= 1
        session.seen_s = session.clock()
        served.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        _raise_failure(task)
    if socket.application_state is WebSocketState.CONNECTED:
        await _close(socket, session.ended)


class _SessionSocket:
    """The state that a socket's three tasks share."""

    def __init__(
        self, socket: WebSocket, session: Session, role: str, live: LiveConfig, server: ServerConfig
    ) -> None:
        self._socket, self._session, self._role = socket, session, role
        self._server = server
        self._listener = session.add_listener()
        self._viewer: Viewer | None = None
        self._sequence = -1
        self._refusals = 0
        self._window = AckWindow(live)
        self._acknowledged = asyncio.Event()

    def close(self) -> None:
        """Leave the session."""
        self._session.remove_listener(self._listener)
        if self._viewer is not None:
            self._session.remove_viewer(self._viewer)

    async def receive(self) -> None:
        """Receive messages until the client leaves or was refused too often."""
        while self._refusals < _MAX_REFUSALS:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                if (data := message.get("bytes")) is not None:
                    self._receive_frame(data)
                elif (text := message.get("text")) is not None:
                    self._receive_text(text)
            except RefusedError as error:
                self._refusals += 1
                self._listener.put(error.message())

    async def send_messages(self) -> None:
        """Send messages until the last."""
        while True:
            message = await self._listener.get()
            await self._socket.send_text(json.dumps(message, allow_nan=False))
            if message["type"] == "ended":
                return

    async def send_frames(self) -> None:
        """Send finished frames, never more than the client keeps up with."""
        session = self._session
        viewer = self._viewer = session.add_viewer()
        while True:
            while not self._window.has_room:
                self._acknowledged.clear()
                await self._acknowledged.wait()
            frame = await viewer.get(session.clock)
            if frame is None:
                await asyncio.Event().wait()  # ``send_messages`` ends the socket
                return
            jpeg = await asyncio.to_thread(frame.jpeg, self._encode)
            self._window.sent(frame.header.index, session.clock())
            times = replace(frame.header.times, pace_ms=1e3 * (session.clock() - frame.done_s))
            await self._socket.send_bytes(pack_finished(replace(frame.header, times=times), jpeg))

    # --- one message --------------------------------------------------------------------------------------

    def _receive_frame(self, data: bytes) -> None:
        session = self._session
        if self._role != "driver":
            raise RefusedError("bad_request", "a viewer sends no frames")
        header, jpeg = unpack_driving(data)
        if header.sequence <= self._sequence:
            raise RefusedError("bad_request", f"frame {header.sequence} after {self._sequence}: numbers must grow")
        self._check_jpeg(jpeg)
        if self._sequence < 0:
            session.restart_camera()
        self._sequence = header.sequence
        frame = DrivingFrame(header.sequence, header.capture_us, session.clock(), _Jpeg(jpeg))
        session.push(frame, "camera")

    def _check_jpeg(self, jpeg: bytes) -> None:
        """Check size and header; the frame may never have to be decoded."""
        if len(jpeg) > self._server.frame_bytes:
            raise RefusedError("too_large", f"a driving frame may have {self._server.frame_bytes / 1e6:g} MB")
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        except ValueError:
            raise RefusedError("unusable_input", "the driving frame is not a JPEG image") from None
        if int(width) * int(height) > self._server.frame_pixels:
            limit = self._server.frame_pixels / 1e6
            raise RefusedError(
                "too_large", f"the driving frame is {width} x {height}: {limit:g} million pixels at most"
            )

    def _receive_text(self, text: str) -> None:
        if len(text) > self._server.message_bytes:
            raise RefusedError("too_large", f"a message may have {self._server.message_bytes} characters")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        message = message if isinstance(message, dict) else {}
        kind = message.get("type")
        if kind == "ack":
            self._window.acknowledged(_number(message, "index"), self._session.clock())
            self._acknowledged.set()
        elif kind == "ping":
            self._listener.put({"type": "pong", "at_ms": _number(message, "at_ms")})
        else:
            raise RefusedError("bad_request", "a message is a JSON object of type ack or ping")

    def _encode(self, image: np.ndarray) -> bytes:
        return simplejpeg.encode_jpeg(
            np.ascontiguousarray(image), quality=self._server.jpeg_quality, colorsubsampling="420", fastdct=True
        )


class _Jpeg:
    """Image that is decoded when it is needed."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> np.ndarray:
        try:
            return simplejpeg.decode_jpeg(self._data, colorspace="RGB", fastdct=True)
        except ValueError as error:
            raise InputError(f"a driving frame is a damaged JPEG image ({error})") from None


def _number(message: Mapping[str, Any], name: str) -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise RefusedError("bad_request", f"{message.get('type')} needs a number {name!r}")
    return value


def _subprotocol(socket: WebSocket) -> str | None:
    return PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", []) else None


def _raise_failure(task: asyncio.Task) -> None:
    """Raise a task's exception, unless the socket closed while it was sending."""
    error = task.exception() if not task.cancelled() else None
    if error is not None and not isinstance(error, WebSocketDisconnect | RuntimeError):
        raise error


async def _close(socket: WebSocket, reason: str | None) -> None:
    code = CLOSE_ENDED if reason is not None else CLOSE_REFUSED
    try:
        await socket.close(code, (reason or "too many messages that were refused")[:120])
    except (RuntimeError, WebSocketDisconnect):
        return
