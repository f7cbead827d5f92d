"""Frames from images: an animated GIF, WebP, PNG or AVIF, or a still held for a while."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path

from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.source import RawFrame, SourceInfo, ticks
from personalive.media.still import DECODE_ERRORS, image_array, load_still, open_image

_HASTY_S = Fraction(1, 100)  # browsers take frames as short as this for a mistake
_MAX_DENOMINATOR = 65_535  # of an APNG's delays, which are fractions of seconds


class StillSource:
    """One image shown ``MediaConfig.still_seconds`` long at ``still_fps``."""

    def __init__(self, path: Path, config: MediaConfig) -> None:
        self._image = load_still(path, config)
        self._count = max(round(config.still_seconds * config.still_fps), 1)
        rate = Fraction(config.still_fps)
        self.warnings: list[str] = []
        self.info = SourceInfo(1 / rate, rate, Fraction(self._count) / rate, origin_pts=0, has_audio=False)

    def frames(self, from_pts: int | None) -> Iterator[RawFrame]:
        """``_count`` times the same image; callers may change their copy."""
        for index in range(from_pts or 0, self._count):
            yield RawFrame(self._image.copy, index, 1)

    def close(self) -> None:
        """Nothing is held open."""


class AnimationSource:
    """The frames of an animated image, once through, composited, one in memory at a time."""

    def __init__(self, path: Path, config: MediaConfig) -> None:
        self._path, self._config = path, config
        self._stack = ExitStack()
        self._image = self._stack.enter_context(open_image(path, config))
        self.warnings: list[str] = []
        # Some APNG files begin with an image for programs that show no animations.
        self._first = int(bool(getattr(self._image, "default_image", False)))
        self._load(self._first)
        shown = self._frame_s()
        base = Fraction(1, math.lcm(1000, shown.denominator))
        self.info = SourceInfo(base, 1 / shown, None, origin_pts=0, has_audio=False)

    def _frame_s(self) -> Fraction:
        stated = Fraction((self._image.info.get("duration") or 0) / 1000).limit_denominator(_MAX_DENOMINATOR)
        return stated if stated > _HASTY_S else Fraction(self._config.animation_default_ms, 1000)

    def frames(self, from_pts: int | None) -> Iterator[RawFrame]:
        """From the start always: each frame builds on the one before. ``from_pts`` is not used."""
        time, index, base = Fraction(0), self._first, self.info.time_base
        while self._load(index):
            shown = self._frame_s()
            begin, end = ticks(time, base), ticks(time + shown, base)
            # Copied now: the lazily converted frame must not follow the decoder to the next one.
            yield RawFrame(partial(image_array, self._path, self._image.copy(), self._config), begin, end - begin)
            time, index = time + shown, index + 1

    def _load(self, index: int) -> bool:
        try:
            self._image.seek(index)
            self._image.load()
        except EOFError:
            return False
        except DECODE_ERRORS:
            if index <= self._first:
                raise InputError(f"{self._path}: is damaged or cut off; export it again") from None
            self.warnings.append(f"{self._path}: is cut off or damaged after {index} frames; those are used")
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
