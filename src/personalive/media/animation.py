"""Frames from images: an animated GIF, WebP, PNG or AVIF, or a still held for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path

from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.source import RawFrame, SourceInfo
from personalive.media.still import DECODE_ERRORS, image_array, load_still, open_image

_MILLISECOND = Fraction(1, 1000)
_SHORTEST_MS = 20  # browsers take shorter frames for a mistake


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
        self._picture = self._stack.enter_context(open_image(path, config))
        self.warnings: list[str] = []
        first = max(self._frame_ms(), 1)
        self.info = SourceInfo(_MILLISECOND, Fraction(1000, first), None, origin_pts=0, has_audio=False)

    def _frame_ms(self) -> int:
        shown = self._picture.info.get("duration") or 0
        return round(shown) if shown >= _SHORTEST_MS else self._config.animation_default_ms

    def frames(self, from_pts: int | None) -> Iterator[RawFrame]:
        """From the start always: each frame builds on the one before. ``from_pts`` is not used."""
        pts, index = 0, 0
        while self._load(index):
            shown = self._frame_ms()
            # Copied now: the lazily converted frame must not follow the decoder to the next one.
            yield RawFrame(partial(image_array, self._path, self._picture.copy(), self._config), pts, shown)
            pts, index = pts + shown, index + 1

    def _load(self, index: int) -> bool:
        try:
            self._picture.seek(index)
            self._picture.load()
        except EOFError:
            return False
        except DECODE_ERRORS:
            if index == 0:
                raise InputError(f"{self._path}: is damaged or cut off; export it again") from None
            self.warnings.append(f"{self._path}: is cut off or damaged after {index} frames; those are used")
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
