"""A driving clip, frame by frame: any video, GIF or still, in constant memory, with exact times."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from types import TracebackType
from typing import Self

import numpy as np

from personalive.errors import InputError
from personalive.media.animation import AnimationSource, StillSource
from personalive.media.audio import AudioCut
from personalive.media.config import MediaConfig
from personalive.media.containers import is_jpeg_sequence
from personalive.media.decode import VideoFileSource
from personalive.media.paths import check_input
from personalive.media.source import RawFrame, Source, ticks
from personalive.media.still import check_size, is_animation, is_still


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A clip as it will be read: upright, cut to its start and end."""

    width: int  # pixels, after rotation
    height: int
    average_fps: Fraction  # as the file states it; times of frames may vary
    duration_s: Fraction | None  # stated by the file, an estimate
    estimated_frames: int | None  # for progress bars; only reading counts frames
    has_audio: bool
    time_base: Fraction  # seconds per tick; every frame time is a whole number of these


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the clip."""

    image: np.ndarray  # uint8 (H, W, 3) RGB, upright, writable
    time: Fraction  # seconds after the first frame read, exactly pts * time_base
    pts: int  # strictly increasing, 0 for the first frame read
    duration: Fraction  # seconds it stays on screen, as the file states, else like the frame before


def open_video(
    path: str | os.PathLike[str],
    start_s: Fraction | float | None = None,
    end_s: Fraction | float | None = None,
    config: MediaConfig | None = None,
) -> VideoReader:
    """Open a clip, or the part of it from ``start_s`` (included) to ``end_s`` (excluded).

    A GIF or other animated image plays once; a still lasts ``MediaConfig.still_seconds``. The first frame
    is decoded here, so a clip that opens has at least one.

    Raises:
        InputError: unreadable, no images in it, outside the size limits, or nothing between the times.
    """
    return VideoReader(path, start_s, end_s, config)


class VideoReader:
    """A context manager and a one-pass iterator over ``Frame``. Made by ``open_video``.

    Attributes:
        info: what is known before reading.
        warnings: one line each about truncation, damage, repaired time stamps; grows while reading.
        audio: the sound that belongs to the frames, for ``VideoWriter(audio_from=...)``; None without.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        start_s: Fraction | float | None = None,
        end_s: Fraction | float | None = None,
        config: MediaConfig | None = None,
        *,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            on_progress: called with every frame decoded, those before the start included.
        """
        self.path = check_input(path)
        self._config, self._on_progress = config or MediaConfig(), on_progress
        self._cut = check_times(self.path, start_s, end_s)
        self._open()

    def _open(self) -> None:
        self._source = _open_source(self.path, self._config)
        try:
            self._prepare(*self._cut)
        except BaseException:
            self._source.close()
            raise

    def _prepare(self, start: Fraction | None, end: Fraction | None) -> None:
        source = self._source.info
        self._repaired = 0
        self._end_pts = None if end is None else source.origin_pts + math.ceil(end / source.time_base)
        from_pts = None if start is None else source.origin_pts + math.ceil(start / source.time_base)
        self._frames = self._read(from_pts, end is not None)
        first = next(self._frames, None)
        if first is None:
            raise InputError(self._nothing_read(start, end))
        self._frames = chain((first,), self._frames)
        height, width = first.image.shape[:2]
        check_size(self.path, width, height, self._config)
        first_time = self._first_pts * source.time_base
        last_time = None if end is None else source.origin_pts * source.time_base + end
        self.audio = AudioCut(self.path, first_time, last_time) if source.has_audio else None
        self.info = self._describe(width, height, start, end)

    # --- iteration -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def rewind(self) -> None:
        """Start over at the first frame.

        Raises:
            InputError: the file can no longer be read.
        """
        self._source.close()
        self._open()

    def interrupt(self) -> None:
        """Let a read under way in another thread fail soon, where that is possible."""

    def close(self) -> None:
        """Close the file. Reading on after this is an error."""
        self._frames = iter(())
        self._source.close()

    @property
    def warnings(self) -> list[str]:
        """Warnings about the clip for the user, one line each."""
        if not self._repaired:
            return list(self._source.warnings)
        repaired = f"{self.path}: {self._repaired} missing or repeated time stamps were filled in"
        return [*self._source.warnings, repaired]

    def _read(self, from_pts: int | None, cut_end: bool) -> Iterator[Frame]:
        base = self._source.info.time_base
        nominal = max(ticks(1 / self._source.info.average_fps, base), 1)
        timeline = Timeline(nominal, ticks(self._config.clock_restart_s, base))
        self._last_seen: Fraction | None = None
        first_pts: int | None = None
        step: int | None = None
        previous: int | None = None
        for raw in self._source.frames(from_pts):
            self._on_progress()
            pts = timeline.place(raw.pts)
            step = self._step(raw, pts, previous) or step or nominal
            previous = pts
            self._repaired = timeline.repaired
            self._last_seen = (pts + step - self._source.info.origin_pts) * base
            if from_pts is not None and pts < from_pts:
                continue
            if first_pts is None:
                self._first_pts = first_pts = pts
            if cut_end and self._end_pts is not None and pts >= self._end_pts:
                return
            yield self._frame(raw, pts - first_pts, step * base)

    def _step(self, raw: RawFrame, pts: int, previous: int | None) -> int | None:
        """Ticks that a frame is shown: as stated where that is plausible, else like the frame before."""
        if raw.duration and raw.duration * self._source.info.time_base * self._config.max_plausible_fps >= 1:
            return raw.duration
        return None if previous is None else pts - previous

    def _frame(self, raw: RawFrame, pts: int, duration: Fraction) -> Frame:
        return Frame(raw.image(), pts * self._source.info.time_base, pts, duration)

    # --- description -----------------------------------------------------------------------------------

    def _describe(self, width: int, height: int, start: Fraction | None, end: Fraction | None) -> VideoInfo:
        source = self._source.info
        until = source.duration_s if end is None else end
        if source.duration_s is not None and end is not None:
            until = min(source.duration_s, end)
        duration = None if until is None else max(until - (start or 0), Fraction(0))
        count = None if duration is None else max(round(duration * source.average_fps), 1)
        return VideoInfo(width, height, source.average_fps, duration, count, source.has_audio, source.time_base)

    def _nothing_read(self, start: Fraction | None, end: Fraction | None) -> str:
        if self._last_seen is None:
            return f"{self.path}: not one frame could be decoded; copy it again or convert it to H.264 mp4"
        if start is not None and start >= self._last_seen:
            length, asked = float(self._last_seen), float(start)
            return f"{self.path}: the start ({asked:g} s) is after its end ({length:.2f} s); start earlier"
        return f"{self.path}: no frame lies between the start and the end; leave more time between them"


def _open_source(path: os.PathLike[str], config: MediaConfig) -> Source:
    file = check_input(path)
    if is_still(file) and not is_jpeg_sequence(file):
        return StillSource(file, config)
    if is_animation(file):
        return AnimationSource(file, config)
    return VideoFileSource(file, config)


def check_times(
    path: os.PathLike[str], start_s: Fraction | float | None, end_s: Fraction | float | None
) -> tuple[Fraction | None, Fraction | None]:
    """Exact seconds, decimal where floats are given: 0.1 means a tenth.

    Raises:
        InputError: no such part of a clip.
    """
    for name, value in (("start", start_s), ("end", end_s)):
        if value is not None and (not math.isfinite(value) or value < 0):
            raise InputError(f"{path}: the {name} ({value} s) must be a number of seconds, 0 or more")
    start = None if start_s is None else Fraction(str(start_s))
    end = None if end_s is None else Fraction(str(end_s))
    if end is not None and (end == 0 or (start is not None and start >= end)):
        raise InputError(f"{path}: the end ({end_s} s) must be after the start ({start_s or 0} s)")
    return start, end


class Timeline:
    """Places decoded frames in time. All values are integer ticks of the stream's time base.

    A time stamp later than the one before is taken as it is. Otherwise, in this order (ours):

    1. missing: one nominal step after the frame before (0 for the first frame);
    2. further back than ``restart``: the clock was restarted (joined recordings); this frame comes one step
       after the one before and everything later is moved by the same amount;
    3. repeated or slightly backward: half a step (at least one tick) after the frame before, which leaves
       the following frame its own place.
    """

    def __init__(self, step: int, restart: int) -> None:
        """
        Args:
            step: nominal time between frames, at least 1.
            restart: a jump back of more than this is a restarted clock.
        """
        self._step = max(step, 1)
        self._restart = restart
        self._shift = 0
        self._last: int | None = None
        self.repaired = 0  # frames that did not keep their own time

    def place(self, pts: int | None) -> int:
        """The time of the next frame, given the one the file states (``None`` where it states none)."""
        if self._last is None:
            self.repaired += pts is None
            self._last = 0 if pts is None else pts
            return self._last
        if pts is not None and pts + self._shift > self._last:
            self._last = pts + self._shift
            return self._last
        self.repaired += 1
        if pts is None:
            self._last += self._step
        elif self._last - (pts + self._shift) > self._restart:
            self._shift = self._last + self._step - pts
            self._last += self._step
        else:
            self._last += max(self._step // 2, 1)
        return self._last
