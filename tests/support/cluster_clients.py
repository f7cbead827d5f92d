"""Clients of a cluster in one event loop: WebSockets and WHIP, what came to each and when."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx2
import numpy as np
import simplejpeg
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from personalive.server.wire import DrivingHeader, pack_driving, unpack_finished
from support.whip_client import SDP, Images

PING_S = 0.5


class ClusterClient:
    """Session with a portrait, driven by a WebSocket; it reconnects as the page does."""

    def __init__(
        self, http: httpx2.AsyncClient, images: Sequence[np.ndarray], fps: float, portrait: bytes | None = None
    ) -> None:
        """``portrait``: a file to upload; None: one of the gallery."""
        self.http, self.fps = http, fps
        self._uploaded, self._gallery = portrait, {} if portrait else {"gallery": "portrait-1"}
        self._images = images
        self._jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(image)) for image in images]
        self.session: dict[str, Any] = {}
        self.frames_s: list[float] = []
        self.pongs_s: list[float] = []
        self.indices: list[int] = []
        self.moves_s: list[float] = []
        self.states: list[dict[str, Any]] = []
        self.ended: str | None = None
        self.connections = 0
        self.replicas: set[str] = set()
        self._task: asyncio.Task | None = None

    @property
    def path(self) -> str:
        return f"/api/sessions/{self.session['id']}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.session['key']}"}

    async def open(self, **controls: Any) -> None:
        """Open the session, in the queue if need be, set portrait and controls, and begin to drive."""
        answer = await self.http.post("/api/sessions", json={})
        while answer.status_code == 503 and (ticket := answer.json()["error"].get("ticket")):
            await asyncio.sleep(1)
            answer = await self.http.post("/api/sessions", json={"ticket": ticket})
        assert answer.status_code == 201, answer.text
        self.session = answer.json()
        answer = await self.http.put(
            f"{self.path}/portrait", params=self._gallery, content=self._uploaded, headers=self.headers
        )
        assert answer.status_code == 200, answer.text
        answer = await self.http.patch(f"{self.path}/controls", json=controls, headers=self.headers)
        assert answer.status_code == 200, answer.text
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End the session."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.http.delete(self.path, headers=self.headers)

    def check(self) -> None:
        """Raise what the client died of."""
        if self._task is not None and self._task.done():
            self._task.result()
        assert self.ended is None, self.ended

    def longest_gap_s(self, since_s: float, *, pongs: bool = False) -> float:
        """Longest time without a frame, or without the answer to a ping, since then."""
        times = [since_s, *(t for t in (self.pongs_s if pongs else self.frames_s) if t > since_s), time.monotonic()]
        return max(b - a for a, b in pairwise(times))

    def back_s(self, since_s: float) -> float:
        """Time from then to the first frame after the session's move."""
        moved = next((t for t in self.moves_s if t > since_s), None)
        if moved is None:
            return float("inf")
        return next((t for t in self.frames_s if t > moved), float("inf")) - since_s

    async def _run(self) -> None:
        while self.ended is None:
            names: Any = ["personalive.v1", f"key.{self.session['key']}"]
            address = str(self.http.base_url).replace("http", "ws", 1).rstrip("/") + self.path + "/socket"
            with suppress(ConnectionClosed, OSError):
                async with connect(address, subprotocols=names, max_size=None, open_timeout=60) as socket:
                    self.connections += 1
                    tasks = [asyncio.create_task(work(socket)) for work in (self._drive, self._ping)]
                    try:
                        async for message in socket:
                            await self._receive(socket, message)
                    finally:
                        for task in tasks:
                            task.cancel()
            await asyncio.sleep(0.3)

    async def _drive(self, socket: Any) -> None:
        sequence = 0
        while True:
            sequence += 1
            jpeg = self._jpegs[sequence % len(self._jpegs)]
            await socket.send(pack_driving(DrivingHeader(sequence, time.monotonic_ns() // 1000), jpeg))
            await asyncio.sleep(1 / self.fps)

    async def _ping(self, socket: Any) -> None:
        while True:
            await socket.send(json.dumps({"type": "ping", "at_ms": 0}))
            await asyncio.sleep(PING_S)

    async def _receive(self, socket: Any, message: str | bytes) -> None:
        now = time.monotonic()
        if isinstance(message, bytes):
            header, _ = unpack_finished(message)
            self.frames_s.append(now)
            self.indices.append(header.index)
            await socket.send(json.dumps({"type": "ack", "index": header.index}))
            return
        found = json.loads(message)
        if found["type"] == "pong":
            self.pongs_s.append(now)
        elif found["type"] == "state":
            self.states.append(found["state"])
        elif found["type"] == "moved":
            self.moves_s.append(now)
            await self.renew()
        elif found["type"] == "ended":
            self.ended = found["reason"]

    async def renew(self) -> None:
        """Renew what a move ended."""


class WhipClusterClient(ClusterClient):
    """Session driven by WHIP; its socket shows the result, and says when the offer has to be renewed."""

    rtc: RTCPeerConnection | None = None
    connects = 0

    async def open(self, **controls: Any) -> None:
        await super().open(**controls)
        await self.renew()

    async def close(self) -> None:
        if self.rtc is not None:
            await self.rtc.close()
        await super().close()

    async def _drive(self, socket: Any) -> None:
        """The camera comes by WebRTC."""

    async def renew(self) -> None:
        if self.rtc is not None:
            await self.rtc.close()
        self.rtc = rtc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        rtc.addTransceiver(Images(self._images, max(1, round(self.fps))), direction="sendonly")
        await rtc.setLocalDescription(await rtc.createOffer())
        headers = {**self.headers, "Content-Type": SDP}
        answer = await self.http.post(f"{self.path}/whip", content=rtc.localDescription.sdp, headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"].startswith(f"{self.path}/whip/")
        await rtc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        self.connects += 1
