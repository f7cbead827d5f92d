"""Decoded frames before their time stamps are put in order, and what a file states about itself."""

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


def ticks(time: Fraction | float, time_base: Fraction) -> int:
    """The tick of ``time_base`` nearest to ``time`` (seconds)."""
    return round(Fraction(time) / time_base)
