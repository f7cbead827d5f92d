"""Driving of a video, window by window: a clip that is read as it goes, or a motion clip.

Letters: F frames of a window (``chunk_frames``), S image side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, TypeVar

import numpy as np

from personalive.engine.state import Motion, Window
from personalive.media.audio import AudioCut
from personalive.media.reader import VideoReader
from personalive.offline.motion_file import MotionClip
from personalive.vision.framing import DrivingFramer, FramedFrame, FrameTime

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class DrivingFrame:
    """One driving frame with its time in the video."""

    time: FrameTime
    cut: bool  # it begins a new shot
    image: np.ndarray | None  # (S, S, 3) uint8 as framed; None in a motion clip


@dataclass(frozen=True, slots=True)
class DrivingWindow:
    """One chunk of driving; the last one of a performance is padded with its last frame."""

    driver: np.ndarray | Motion  # F frames
    frames: list[DrivingFrame]  # the real ones, 1 to F

    def to_engine(self) -> Window:
        """The window as ``Engine.stream`` takes it; of several cuts the last one stays the base."""
        return Window(self.driver, max((i for i, frame in enumerate(self.frames) if frame.cut), default=None))


class Driving(Protocol):
    """A performance, once through."""

    time_base: Fraction  # seconds per tick of its times
    fps: Fraction  # typical rate
    expected: int | None  # frames, as far as is known before
    audio: AudioCut | None

    def windows(self) -> Iterator[DrivingWindow]:
        """All of it in constant memory."""
        ...

    def framing(self) -> dict[str, Any]:
        """Framing of the images, for the run's record."""
        ...

    def warnings(self) -> list[str]:
        """Warnings for the user, one line each; complete after the last window."""
        ...


class ClipDriving:
    """A clip, framed."""

    def __init__(
        self,
        reader: VideoReader,
        framer: DrivingFramer,
        chunk_frames: int,
        *,
        neutral: np.ndarray | None = None,
        mirror: bool = False,
    ) -> None:
        """
        Args:
            reader: the clip.
            framer: makes its images square.
            chunk_frames: frames per window.
            neutral: (S, S, 3) drives where the framer asks for the portrait's own pose.
            mirror: exchange left and right before anything else.
        """
        self._reader, self._framer, self._chunk = reader, framer, chunk_frames
        self._neutral, self._mirror = neutral, mirror
        info = reader.info
        self.time_base, self.fps, self.expected = info.time_base, info.average_fps, info.estimated_frames
        self.audio = reader.audio

    def windows(self) -> Iterator[DrivingWindow]:
        """See ``Driving``."""
        frames: list[DrivingFrame] = []
        for framed in self._framed():
            assert framed.time is not None
            image = self._neutral if framed.neutral and self._neutral is not None else framed.image
            frames.append(DrivingFrame(framed.time, framed.cut, image))
            if len(frames) == self._chunk:
                yield self._window(frames)
                frames = []
        if frames:
            yield self._window(frames)

    def framing(self) -> dict[str, Any]:
        """The framer's report."""
        return self._framer.report.to_json()

    def warnings(self) -> list[str]:
        """The framer's and the reader's."""
        note = self._framer.report.note
        return [*([f"driving clip: {note}"] if note else []), *self._reader.warnings]

    def _framed(self) -> Iterator[FramedFrame]:
        for frame in self._reader:
            image = np.ascontiguousarray(frame.image[:, ::-1]) if self._mirror else frame.image
            yield from self._framer.push(image, FrameTime(frame.time, frame.duration))
        yield from self._framer.flush()

    def _window(self, frames: list[DrivingFrame]) -> DrivingWindow:
        images = [frame.image for frame in frames if frame.image is not None]
        return DrivingWindow(np.stack(images + images[-1:] * (self._chunk - len(images))), frames)


class MotionDriving:
    """A motion clip, which fits the engine that replays it."""

    audio: AudioCut | None = None
    expected: int | None

    def __init__(self, clip: MotionClip, chunk_frames: int) -> None:
        self._clip, self._chunk = clip, chunk_frames
        self.time_base, self.fps, self.expected = clip.time_base, clip.fps, len(clip)

    def windows(self) -> Iterator[DrivingWindow]:
        """See ``Driving``."""
        starts = [tick * self.time_base for tick in self._clip.ticks().tolist()]
        for first in range(0, len(self._clip), self._chunk):
            motion = self._clip.motion[first : first + self._chunk]
            frames = [
                DrivingFrame(FrameTime(starts[i], starts[i + 1] - starts[i]), bool(self._clip.cuts[i]), None)
                for i in range(first, first + len(motion))
            ]
            yield DrivingWindow(Motion.cat([motion, *[motion[-1:]] * (self._chunk - len(motion))]), frames)

    def framing(self) -> dict[str, Any]:
        """Counts that a motion clip keeps."""
        return {"mode": "motion file", "frames": len(self._clip), "cuts": int(self._clip.cuts.sum())}

    def warnings(self) -> list[str]:
        """None."""
        return []


def prefetched(items: Iterable[Item], count: int) -> Generator[Item]:
    """The same items in order, up to ``count`` of them made by another thread while the last one is used.

    An error of ``items`` comes in its place. Close the generator where it is not used up: that ends the thread, after
    the item that it is at.
    """
    end, source = object(), iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="personalive-prefetch") as thread:
        ahead = deque(thread.submit(next, source, end) for _ in range(count))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(thread.submit(next, source, end))
                yield item  # pyright: ignore[reportReturnType]  (the end is no item)
        finally:
            for future in ahead:
                future.cancel()
