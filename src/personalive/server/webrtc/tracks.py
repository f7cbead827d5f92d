"""Media of WebRTC peers: driving frames and sound that come in, the result and that sound going out.

Frames arrive decoded, by a thread of aiortc's own, for each one depends on those before; colours are only converted
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
_LEAST_STEP = 90  # 1 ms: aiortc's VP8 rounds by way of microseconds, and frames of one time are decoded as one
_SOUND_HZ = 48_000  # RFC 7587
_SOUND_FRAMES = 250  # that a viewer may be behind: 5 s of 20 ms, more than the longest delay
_GAP_S = 0.5  # a longer jump of the sender's clock is a new beginning


class ResultTrack(MediaStreamTrack):
    """A session's result as video of a given size, each frame at its time.

    Time stamps follow the times to show frames, so a player that smooths by them shows an even rate. Where nothing
    comes, as before the first frame and while the session is paused, the last frame (black before the first) is sent
    again every ``repeat_s``.
    """

    kind = "video"

    def __init__(self, session: Session, size_px: int, repeat_s: float) -> None:
        super().__init__()
        self._session, self._repeat_s = session, repeat_s
        self._viewer: Viewer | None = None
        self._image = np.zeros((size_px, size_px, 3), np.uint8)
        self._begun_s, self._pts = 0.0, -_LEAST_STEP

    async def recv(self) -> av.VideoFrame:
        """The next frame (rgb24), when its time has come.

        Raises:
            MediaStreamError: the session has ended, or the track.
        """
        if self.readyState != "live":
            raise MediaStreamError
        if self._viewer is None:  # only now, so that nothing waits for a peer that is not connected yet
            self._viewer, self._begun_s = self._session.add_viewer(), self._session.clock()
        shown_s = await self._advance(self._viewer)
        if shown_s is None:
            self.stop()
            raise MediaStreamError
        self._pts = max(self._pts + _LEAST_STEP, round((shown_s - self._begun_s) * _VIDEO_HZ))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self._image), format="rgb24")
        frame.pts, frame.time_base = self._pts, Fraction(1, _VIDEO_HZ)
        return frame

    def stop(self) -> None:
        """Leave the session."""
        super().stop()
        if self._viewer is not None:
            self._session.remove_viewer(self._viewer)

    async def _advance(self, viewer: Viewer) -> float | None:
        """When the next frame is shown, by the session's clock; None after the last."""
        try:
            async with asyncio.timeout(self._repeat_s):
                finished = await viewer.get(self._session.clock)
        except TimeoutError:
            return self._session.clock()
        if finished is None:
            return None
        self._image = finished.image
        return finished.show_at_s


class Sound:
    """Sound of a session's driver for all its viewers, on one unbroken clock. Event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._begun_s = clock, clock()
        self._tracks: set[SoundTrack] = set()
        self._shift: int | None = None  # from the sender's time stamps to ours
        self._end = 0  # of the last frame, samples

    def put(self, frame: av.AudioFrame, delay_s: float) -> None:
        """Hand on a frame of 48 kHz, to be heard in ``delay_s``."""
        now = self._clock()
        pts = frame.pts or 0
        if self._shift is None or abs(pts + self._shift - self._end) > _GAP_S * _SOUND_HZ:
            self._shift = max(self._end, round((now - self._begun_s) * _SOUND_HZ)) - pts
        frame.pts, frame.time_base = max(pts + self._shift, self._end), Fraction(1, _SOUND_HZ)
        self._end = frame.pts + frame.samples
        for track in self._tracks:
            track.put(frame, now + delay_s)

    def join(self, track: SoundTrack) -> None:
        """A listener more."""
        self._tracks.add(track)

    def leave(self, track: SoundTrack) -> None:
        """A listener less."""
        self._tracks.discard(track)


class SoundTrack(MediaStreamTrack):
    """The driver's sound for one viewer; silent for as long as no driver sends any."""

    kind = "audio"

    def __init__(self, sound: Sound, clock: Clock) -> None:
        super().__init__()
        self._sound, self._clock = sound, clock
        self._frames: deque[tuple[float, av.AudioFrame]] = deque(maxlen=_SOUND_FRAMES)
        self._arrived = asyncio.Event()
        self._joined = False

    def put(self, frame: av.AudioFrame, due_s: float) -> None:
        """A frame to be sent at ``due_s``; the oldest falls out where too many wait."""
        self._frames.append((due_s, frame))
        self._arrived.set()

    async def recv(self) -> av.AudioFrame:
        """The next frame, when its time has come.

        Raises:
            MediaStreamError: the track has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError
        if not self._joined:
            self._joined = True
            self._sound.join(self)
        while not self._frames:
            self._arrived.clear()
            await self._arrived.wait()
        due_s, frame = self._frames.popleft()
        await asyncio.sleep(max(0.0, due_s - self._clock()))
        return frame

    def stop(self) -> None:
        """Hear no more."""
        super().stop()
        self._sound.leave(self)


async def drive(track: MediaStreamTrack, session: Session, max_pixels: int) -> None:
    """Let a peer's video drive the session until it ends.

    Time stamps count from the first frame. Frames are pushed as the camera's, and so wait for nobody while something
    else drives.

    Raises:
        RefusedError: frames of more than ``max_pixels``; or the session has ended.
    """
    sequence = 0
    while (frame := cast("av.VideoFrame | None", await _next(track))) is not None:
        if frame.width * frame.height > max_pixels:
            raise RefusedError(
                "too_large",
                f"the video is {frame.width} x {frame.height}: {max_pixels / 1e6:g} million pixels at most",
            )
        if not sequence and session.driver == "camera":  # another camera: framed anew, with a clock of its own
            session.inbox.restart()
            await session.run_on_worker(LiveStream.change_driver)
        if frame.pts is None or frame.time_base is None:
            continue
        sequence += 1
        capture_us = round(frame.pts * frame.time_base * 1_000_000)
        session.push(DrivingFrame(sequence, capture_us, session.clock(), _pixels(frame)), "camera")


async def hand_on(track: MediaStreamTrack, session: Session, sound: Sound) -> None:
    """Let a peer's sound be heard by the session's viewers until it ends, ``delay_ms`` of the controls later."""
    resampler = av.AudioResampler(format="s16", layout="stereo", rate=_SOUND_HZ)
    while (frame := cast("av.AudioFrame | None", await _next(track))) is not None:
        for part in resampler.resample(frame):
            sound.put(part, session.controls.delay_ms / 1e3)


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
