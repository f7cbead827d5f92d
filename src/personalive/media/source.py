"""Decoded frames, and strictly increasing time stamps out of whatever a file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A decoded frame before its time stamp is put in order.

    ``image()`` converts the pixels to uint8 ``(H, W, 3)`` RGB, upright; frames that are only skipped over
    need not pay for it. ``pts`` and ``duration`` are ticks of the source's time base, None where unknown.
    """

    image: Callable[[], np.ndarray]
    pts: int | None
    duration: int | None


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Statements of a file about itself; estimates except for the time base."""

    time_base: Fraction  # seconds per tick
    average_fps: Fraction
    duration_s: Fraction | None
    origin_pts: int  # the tick that counts as second 0 of the clip
    has_audio: bool


class Source(Protocol):
    """An open clip."""

    info: SourceInfo
    warnings: list[str]  # grows while frames are read

    def frames(self, from_pts: int | None) -> Iterator[RawFrame]:
        """Frames in order of presentation; with ``from_pts``, earlier ones may be left out."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


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


def ticks(time: Fraction | float, time_base: Fraction) -> int:
    """The tick of ``time_base`` nearest to ``time`` (seconds)."""
    return round(Fraction(time) / time_base)
