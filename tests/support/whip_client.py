"""WHIP and WHEP client on aiortc, independent of the page: sends synthetic images, keeps what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise

import av
import numpy as np
from aiortc import AudioStreamTrack, MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from personalive.live.frames import FinishedFrame
from personalive.live.session import Session
from support.waiting import wait_until_async
from support.whip_server import Answer, LiveServer

SDP = "application/sdp"


class Images(MediaStreamTrack):
    """(H, W, 3) uint8 images at a steady rate, in a loop."""

    kind = "video"

    def __init__(self, images: Sequence[np.ndarray], fps: int) -> None:
        super().__init__()
        self._images, self._fps, self._index, self._begun = images, fps, 0, 0.0

    async def recv(self) -> av.VideoFrame:
        self._begun = self._begun or time.monotonic()
        await asyncio.sleep(max(0.0, self._begun + self._index / self._fps - time.monotonic()))
        frame = av.VideoFrame.from_ndarray(self._images[self._index % len(self._images)], format="rgb24")
        frame.pts, frame.time_base = self._index * 90_000 // self._fps, Fraction(1, 90_000)
        self._index += 1
        return frame


class Tone(AudioStreamTrack):
    """Loud square wave."""

    async def recv(self) -> av.AudioFrame:
        frame = await super().recv()
        assert isinstance(frame, av.AudioFrame)
        wave = np.where(np.arange(frame.samples) % 16 < 8, 12_000, -12_000).astype(np.int16)
        loud = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        loud.pts, loud.sample_rate, loud.time_base = frame.pts, frame.sample_rate, frame.time_base
        return loud


class Client:
    """Client of one WebRTC connection."""

    def __init__(self, server: LiveServer, path: str, key: str) -> None:
        self._server, self._path, self._key = server, path, key
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.frames: list[av.VideoFrame] = []
        self.came_s: list[float] = []
        self.sound: list[np.ndarray] = []
        self.location = ""
        self._tasks: list[asyncio.Task[None]] = []
        self.connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._keep(track))))

    async def offer(self) -> str:
        """Return an offer with all candidates."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def request(self, method: str, path: str, body: str = "", media_type: str = "") -> Answer:
        """Send an HTTP request with the key."""
        return await asyncio.to_thread(self._server.request, method, path, body, key=self._key, media_type=media_type)

    async def call(self, sdp: str | None = None) -> Answer:
        """Send the offer and apply the answer."""
        answer = await self.request("POST", self._path, sdp or await self.offer(), SDP)
        if answer.status == 201:
            self.location = answer.headers["location"]
            await self.connection.setRemoteDescription(RTCSessionDescription(answer.body.decode(), "answer"))
        return answer

    async def connect(self) -> None:
        """Negotiate, and wait until connected."""
        assert (await self.call()).status == 201
        await self.until(lambda: self.connection.connectionState == "connected")

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        await wait_until_async(condition)

    async def more(self, count: int) -> list[np.ndarray]:
        """Return the next ``count`` frames as (H, W, 3) uint8; fails where the server ends the connection."""
        begin = len(self.frames)

        def came() -> bool:
            assert self.connection.connectionState not in ("failed", "closed"), "the connection has ended"
            return len(self.frames) >= begin + count

        await wait_until_async(came, progress=lambda: len(self.frames))
        return [frame.to_ndarray(format="rgb24") for frame in self.frames[begin : begin + count]]

    async def hang_up(self) -> Answer:
        """End the connection by DELETE."""
        return await self.request("DELETE", self.location)

    def pull_the_plug(self) -> None:
        """Stop sending without a word, as a killed client does."""
        for transceiver in self.connection.getTransceivers():
            for protocol in transceiver.receiver.transport.transport._connection._protocols:
                protocol.transport.abort()

    async def close(self) -> None:
        """Close the connection and its tasks."""
        await self.connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, av.VideoFrame):
                self.frames.append(frame)
                self.came_s.append(time.monotonic())
            elif isinstance(frame, av.AudioFrame):
                self.sound.append(frame.to_ndarray())


def publisher(
    server: LiveServer, session: str, key: str, images: Sequence[np.ndarray], *, fps: int = 25, sound: bool = False
) -> Client:
    """Client that sends images by WHIP, with a tone where ``sound``."""
    client = Client(server, f"/api/sessions/{session}/whip", key)
    client.connection.addTransceiver(Images(images, fps), direction="sendonly")
    if sound:
        client.connection.addTransceiver(Tone(), direction="sendonly")
    return client


def watcher(server: LiveServer, session: str, key: str, *, sound: bool = False) -> Client:
    """Client that views the result by WHEP."""
    client = Client(server, f"/api/sessions/{session}/whep", key)
    client.connection.addTransceiver("video", direction="recvonly")
    if sound:
        client.connection.addTransceiver("audio", direction="recvonly")
    return client


def post(server: LiveServer, session: Session, kind: str, key: str) -> Answer:
    """Send an offer of a client that never connects."""
    offer = sample_offer("sendonly" if kind == "whip" else "recvonly")
    return server.request("POST", f"/api/sessions/{session.id}/{kind}", offer, key=key, media_type=SDP)


@cache
def sample_offer(direction: str) -> str:
    """Offer of one video."""

    async def make() -> str:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.addTransceiver("video", direction=direction)
        await connection.setLocalDescription(await connection.createOffer())
        sdp = connection.localDescription.sdp
        await connection.close()
        return sdp

    return asyncio.run(make())


def distinct(frames: list[FinishedFrame]) -> list[FinishedFrame]:
    """Leave out frames equal to the one before."""
    return frames[:1] + [b for a, b in pairwise(frames) if np.abs(a.image.astype(int) - b.image).mean() > 3]


def blocks(images: np.ndarray) -> np.ndarray:
    """Average (F, 64, 64, 3) images over blocks of 8 px: of noise, coding keeps little else."""
    return images.reshape(-1, 8, 8, 8, 8, 3).mean((2, 4))


def recorded(session: Session) -> list[FinishedFrame]:
    """Collect all frames that the session makes from now on."""
    made: list[FinishedFrame] = []
    publish = session.publish

    def both(frames: Sequence[FinishedFrame], frames_per_s: float) -> None:
        made.extend(frames)
        publish(frames, frames_per_s)

    session.publish = both
    return made
