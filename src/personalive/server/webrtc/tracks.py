"""Media of WebRTC connections: driving video and audio in, the result and that audio out.

aiortc decodes every frame on a thread of its own, since each depends on those before; colours are converted only
where the frame is needed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import cast

import av
import av.error
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from personalive.errors import InputError
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock, DrivingFrame
from personalive.live.queues import Viewer
from personalive.live.session import Session
from personalive.live.stream import LiveStream

_VIDEO_HZ = 90_000  # RFC 3551
_MIN_STEP = 90  # 1 ms: aiortc's VP8 rounds by way of microseconds, and frames of one time are decoded as one
_AUDIO_HZ = 48_000  # RFC 7587
_AUDIO_FRAMES = 250  # that a viewer may be behind: 5 s of 20 ms, more than the longest delay
_GAP_S = 0.5  # a longer jump of the sender's clock restarts the timeline


class ResultTrack(MediaStreamTrack):
    """Video of a session's result, each frame at its time.

    Time stamps follow the times to show frames, so a player that smooths by them shows an even rate. While there are
    no frames, before the first and in a pause, the last one (black before the first) is repeated every ``repeat_s``.
    """

    kind = "video"

    def __init__(self, session: Session, size_px: int, repeat_s: float) -> None:
        super().__init__()
        self._session, self._repeat_s = session, repeat_s
        self._viewer: Viewer | None = None
        self._image = np.zeros((size_px, size_px, 3), np.uint8)
        self._begun_s, self._pts = 0.0, -_MIN_STEP

    async def recv(self) -> av.VideoFrame:
        """Return the next frame (rgb24) when it is due.

        Raises:
            MediaStreamError: the session has ended, or the track.
        """
        if self.readyState != "live":
            raise MediaStreamError
        if self._viewer is None:  # only now, so that nothing queues for a client that is not connected yet
            self._viewer, self._begun_s = self._session.add_viewer(), self._session.clock()
        shown_s = await self._advance(self._viewer)
        if shown_s is None:
            self.stop()
            raise MediaStreamError
        self._pts = max(self._pts + _MIN_STEP, round((shown_s - self._begun_s) * _VIDEO_HZ))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self._image), format="rgb24")
        frame.pts, frame.time_base = self._pts, Fraction(1, _VIDEO_HZ)
        return frame

    def stop(self) -> None:
        """Leave the session."""
        super().stop()
        if self._viewer is not None:
            self._session.remove_viewer(self._viewer)

    async def _advance(self, viewer: Viewer) -> float | None:
        """Take the next frame and return its time on the session's clock; None after the last."""
        try:
            async with asyncio.timeout(self._repeat_s):
                finished = await viewer.get(self._session.clock)
        except TimeoutError:
            return self._session.clock()
        if finished is None:
            return None
        self._image = finished.image
        return finished.show_at_s


class AudioRelay:
    """Audio of a session's driver for all its viewers, on one continuous timeline. Event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._begun_s = clock, clock()
        self._tracks: set[AudioTrack] = set()
        self._shift: int | None = None  # from the sender's time stamps to the timeline
        self._end = 0  # of the last frame, samples

    def put(self, frame: av.AudioFrame, delay_s: float) -> None:
        """Pass a frame of 48 kHz to all viewers, to be played in ``delay_s``."""
        now = self._clock()
        pts = frame.pts or 0
        if self._shift is None or abs(pts + self._shift - self._end) > _GAP_S * _AUDIO_HZ:
            self._shift = max(self._end, round((now - self._begun_s) * _AUDIO_HZ)) - pts
        frame.pts, frame.time_base = max(pts + self._shift, self._end), Fraction(1, _AUDIO_HZ)
        self._end = frame.pts + frame.samples
        for track in self._tracks:
            track.put(frame, now + delay_s)

    def add(self, track: AudioTrack) -> None:
        """Add a viewer's track."""
        self._tracks.add(track)

    def remove(self, track: AudioTrack) -> None:
        """Remove a viewer's track."""
        self._tracks.discard(track)


class AudioTrack(MediaStreamTrack):
    """Audio of the driver for one viewer; silent while no driver sends any."""

    kind = "audio"

    def __init__(self, relay: AudioRelay, clock: Clock) -> None:
        super().__init__()
        self._relay, self._clock = relay, clock
        self._frames: deque[tuple[float, av.AudioFrame]] = deque(maxlen=_AUDIO_FRAMES)
        self._arrived = asyncio.Event()
        self._joined = False

    def put(self, frame: av.AudioFrame, due_s: float) -> None:
        """Queue a frame for ``due_s``; drops the oldest when full."""
        self._frames.append((due_s, frame))
        self._arrived.set()

    async def recv(self) -> av.AudioFrame:
        """Return the next frame when it is due.

        Raises:
            MediaStreamError: the track has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError
        if not self._joined:
            self._joined = True
            self._relay.add(self)
        while not self._frames:
            self._arrived.clear()
            await self._arrived.wait()
        due_s, frame = self._frames.popleft()
        await asyncio.sleep(max(0.0, due_s - self._clock()))
        return frame

    def stop(self) -> None:
        """Leave the relay."""
        super().stop()
        self._relay.remove(self)


async def receive_video(track: MediaStreamTrack, session: Session, max_pixels: int) -> None:
    """Drive the session by a connection's video until it ends.

    Frames are the camera's, and so dropped while something else drives. Their sequence number is 0: the client does
    not number them (docs/protocol.md).

    Raises:
        RefusedError: frames of more than ``max_pixels``; or the session has ended.
    """
    is_first = True
    while (frame := cast("av.VideoFrame | None", await _next(track))) is not None:
        if frame.width * frame.height > max_pixels:
            raise RefusedError(
                "too_large",
                f"the video is {frame.width} x {frame.height}: {max_pixels / 1e6:g} million pixels at most",
            )
        if is_first and session.driver == "camera":  # another camera: framed anew, with a clock of its own
            session.inbox.restart()
            await session.run_on_worker(LiveStream.change_driver)
        if frame.pts is None or frame.time_base is None:
            continue
        is_first = False
        capture_us = round(frame.pts * frame.time_base * 1_000_000)
        session.push(DrivingFrame(0, capture_us, session.clock(), _pixels(frame)), "camera")


async def relay_audio(track: MediaStreamTrack, session: Session, relay: AudioRelay) -> None:
    """Relay a connection's audio to the session's viewers until it ends, ``delay_ms`` of the controls later."""
    resampler = av.AudioResampler(format="s16", layout="stereo", rate=_AUDIO_HZ)
    while (frame := cast("av.AudioFrame | None", await _next(track))) is not None:
        for part in resampler.resample(frame):
            relay.put(part, session.controls.delay_ms / 1e3)


async def _next(track: MediaStreamTrack) -> object | None:
    try:
        return await track.recv()
    except MediaStreamError:
        return None


def _pixels(frame: av.VideoFrame) -> Callable[[], np.ndarray]:
    def convert() -> np.ndarray:
        try:
            return frame.to_ndarray(format="rgb24")
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"a driving frame of the WebRTC video cannot be read ({error})") from None

    return convert
