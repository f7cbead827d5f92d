"""A WHIP and WHEP client made of aiortc, which is not the page's: sends drawn pictures, keeps what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from aiortc import AudioStreamTrack, MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from support.whip_server import Answer, LiveServer

SDP = "application/sdp"
_LONG_S = 20.0


class Pictures(MediaStreamTrack):
    """(H, W, 3) uint8 pictures at a steady rate, again and again."""

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
    """A loud square wave."""

    async def recv(self) -> av.AudioFrame:
        frame = await super().recv()
        assert isinstance(frame, av.AudioFrame)
        wave = np.where(np.arange(frame.samples) % 16 < 8, 12_000, -12_000).astype(np.int16)
        loud = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        loud.pts, loud.sample_rate, loud.time_base = frame.pts, frame.sample_rate, frame.time_base
        return loud


class Client:
    """One connection to the server."""

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
        """Our SDP, with all candidates."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def ask(self, method: str, path: str, body: str = "", media_type: str = "") -> Answer:
        """An HTTP request with our key."""
        return await asyncio.to_thread(self._server.ask, method, path, body, key=self._key, media_type=media_type)

    async def call(self, sdp: str | None = None) -> Answer:
        """Send our offer, and take the answer."""
        answer = await self.ask("POST", self._path, sdp or await self.offer(), SDP)
        if answer.status == 201:
            self.location = answer.headers["location"]
            await self.connection.setRemoteDescription(RTCSessionDescription(answer.body.decode(), "answer"))
        return answer

    async def connect(self) -> None:
        """Call, and wait until media flow."""
        assert (await self.call()).status == 201
        await self.until(lambda: self.connection.connectionState == "connected")

    async def until(self, condition) -> None:
        """Wait for something; fails if it never comes."""
        end = time.monotonic() + _LONG_S
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            await asyncio.sleep(0.01)

    async def more(self, count: int) -> list[np.ndarray]:
        """The next ``count`` frames as (H, W, 3) uint8."""
        begin = len(self.frames)
        await self.until(lambda: len(self.frames) >= begin + count)
        return [frame.to_ndarray(format="rgb24") for frame in self.frames[begin : begin + count]]

    async def hang_up(self) -> Answer:
        """End it the way the protocol says."""
        return await self.ask("DELETE", self.location)

    def pull_the_plug(self) -> None:
        """What a killed client looks like from outside: nothing comes any more, and nothing says so."""
        for transceiver in self.connection.getTransceivers():
            for protocol in transceiver.receiver.transport.transport._connection._protocols:
                protocol.transport.abort()

    async def close(self) -> None:
        """Leave nothing behind here."""
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
    """A client that will send pictures by WHIP, with a tone."""
    client = Client(server, f"/api/sessions/{session}/whip", key)
    client.connection.addTransceiver(Pictures(images, fps), direction="sendonly")
    if sound:
        client.connection.addTransceiver(Tone(), direction="sendonly")
    return client


def watcher(server: LiveServer, session: str, key: str, *, sound: bool = False) -> Client:
    """A client that will see the result by WHEP."""
    client = Client(server, f"/api/sessions/{session}/whep", key)
    client.connection.addTransceiver("video", direction="recvonly")
    if sound:
        client.connection.addTransceiver("audio", direction="recvonly")
    return client
