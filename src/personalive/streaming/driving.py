"""What drives a film, window by window: a clip that is read as it goes, or motion that was read before.

Letters: F frames of a window (``chunk_frames``), S picture side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from personalive.media import AudioCut, Frame, VideoReader
from personalive.streaming.state import Motion
from personalive.streaming.template import Template
from personalive.vision.framing import DrivingFramer, FramedFrame


@dataclass(frozen=True, slots=True)
class DrivingFrame:
    """One frame that drives: when it is shown, and what it shows where there is a picture."""

    time: Fraction  # seconds
    duration: Fraction
    cut: bool  # it begins a new shot
    picture: np.ndarray | None  # (S, S, 3) uint8 as framed; None in a template


@dataclass(frozen=True, slots=True)
class Window:
    """One chunk for ``Engine.step``; the last one of a performance is padded with its last frame."""

    driver: np.ndarray | Motion  # F frames
    frames: list[DrivingFrame]  # the real ones, 1 to F

    @property
    def cut(self) -> int | None:
        """Where a new shot begins; of several the last one stays the base."""
        return max((i for i, frame in enumerate(self.frames) if frame.cut), default=None)


class Driving(Protocol):
    """A performance, once through."""

    time_base: Fraction  # seconds per tick of its times
    fps: Fraction  # typical rate
    expected: int | None  # frames, as far as is known before
    audio: AudioCut | None

    def windows(self) -> Iterator[Window]:
        """All of it in constant memory."""
        ...

    def framing(self) -> dict[str, Any]:
        """How the pictures were framed, for the run's record."""
        ...

    def warnings(self) -> list[str]:
        """What the user should hear of it, one line each; complete after the last window."""
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
            framer: makes its pictures square.
            chunk_frames: frames per window.
            neutral: (S, S, 3) drives where the framer asks for the portrait's own pose.
            mirror: exchange left and right before anything else.
        """
        self._reader, self._framer, self._chunk = reader, framer, chunk_frames
        self._neutral, self._mirror = neutral, mirror
        self._times: deque[Frame] = deque()  # without pixels: of frames that the framer holds back
        info = reader.info
        self.time_base, self.fps, self.expected = info.time_base, info.average_fps, info.estimated_frames
        self.audio = reader.audio

    def windows(self) -> Iterator[Window]:
        """As ``Driving`` says."""
        waiting: list[FramedFrame] = []
        for frame in self._framed():
            waiting.append(frame)
            if len(waiting) == self._chunk:
                yield self._window(waiting)
                waiting = []
        if waiting:
            yield self._window(waiting)

    def framing(self) -> dict[str, Any]:
        """The framer's report."""
        return self._framer.report.to_json()

    def warnings(self) -> list[str]:
        """The framer's and the reader's."""
        note = self._framer.report.note
        return [*([f"driving clip: {note}"] if note else []), *self._reader.warnings]

    def _framed(self) -> Iterator[FramedFrame]:
        for frame in self._reader:
            self._times.append(replace(frame, image=np.empty((0, 0, 3), np.uint8)))
            image = np.ascontiguousarray(frame.image[:, ::-1]) if self._mirror else frame.image
            yield from self._framer.push(image, float(frame.time))
        yield from self._framer.flush()

    def _window(self, framed: list[FramedFrame]) -> Window:
        frames = []
        for one in framed:
            source = self._times.popleft()
            picture = self._neutral if one.neutral and self._neutral is not None else one.image
            frames.append(DrivingFrame(source.time, source.duration, one.cut, picture))
        pictures = [frame.picture for frame in frames]
        return Window(np.stack(pictures + pictures[-1:] * (self._chunk - len(pictures))), frames)


class TemplateDriving:
    """A template, which fits the engine that replays it."""

    audio: AudioCut | None = None
    expected: int | None

    def __init__(self, template: Template, chunk_frames: int) -> None:
        self._template, self._chunk = template, chunk_frames
        self.time_base, self.fps, self.expected = template.time_base, template.fps, len(template)

    def windows(self) -> Iterator[Window]:
        """As ``Driving`` says."""
        counted = [tick * self.time_base for tick in self._template.ticks().tolist()]
        for first in range(0, len(self._template), self._chunk):
            motion = self._template.motion[first : first + self._chunk]
            frames = [
                DrivingFrame(counted[i], counted[i + 1] - counted[i], bool(self._template.cuts[i]), None)
                for i in range(first, first + len(motion))
            ]
            yield Window(Motion.cat([motion, *[motion[-1:]] * (self._chunk - len(motion))]), frames)

    def framing(self) -> dict[str, Any]:
        """What a template knows of it."""
        return {"mode": "template", "frames": len(self._template), "cuts": int(self._template.cuts.sum())}

    def warnings(self) -> list[str]:
        """None."""
        return []
