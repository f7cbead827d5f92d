"""Frames of a video, composed of a result and what is shown with it. S is the side of the model's images."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from personalive.vision.paste_back import PasteBack
from personalive.vision.resize import Square, crop_and_resize
from personalive.vision.visible_mark import draw_visible_mark


class Composition(Protocol):
    """Composes frames (height, width, 3) uint8 of one size."""

    @property
    def width(self) -> int:
        """Pixels, even."""
        ...

    @property
    def height(self) -> int:
        """Pixels, even."""
        ...

    def compose(self, driver: np.ndarray | None, result: np.ndarray) -> np.ndarray:
        """Frame of one moment: driver (S, S, 3) uint8, None of a motion file, and the result that it made."""
        ...


class Panels:
    """The square that the model makes, alone or with portrait and driver beside it."""

    def __init__(self, portrait: np.ndarray, size_px: int, *, side_by_side: bool, has_driver: bool) -> None:
        """
        Args:
            portrait: (S, S, 3) uint8.
            size_px: side of each panel.
            side_by_side: show the portrait first, then the driver if there are images of it.
        """
        self._size_px, self._side_by_side = size_px, side_by_side
        self._portrait = self._resize(portrait)
        self.width, self.height = size_px * (1 + side_by_side * (1 + has_driver)), size_px

    def compose(self, driver: np.ndarray | None, result: np.ndarray) -> np.ndarray:
        """See ``Composition``."""
        if not self._side_by_side:
            return self._resize(result)
        shown = [result] if driver is None else [driver, result]
        return np.concatenate([self._portrait, *map(self._resize, shown)], axis=1)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        return crop_and_resize(image, Square(0, 0, image.shape[0]), self._size_px)


class WholePhotograph:
    """The photograph that the portrait was cut from, at its own size, with the result in its place."""

    def __init__(self, paste_back: PasteBack) -> None:
        self._paste_back = paste_back
        self.width, self.height = paste_back.width, paste_back.height

    def compose(self, driver: np.ndarray | None, result: np.ndarray) -> np.ndarray:
        """See ``Composition``."""
        return self._paste_back.put_back(result)


class Marked:
    """Another composition with a visible label."""

    def __init__(self, composition: Composition) -> None:
        self._composition = composition
        self.width, self.height = composition.width, composition.height

    def compose(self, driver: np.ndarray | None, result: np.ndarray) -> np.ndarray:
        """See ``Composition``."""
        return draw_visible_mark(self._composition.compose(driver, result))
