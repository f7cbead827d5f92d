"""Contact sheet of a video: the portrait, and below each other drivers and results at even intervals.

Where a motion file drove, there are results alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from personalive.offline.config import ContactSheetConfig


class ContactSheet:
    """Collects pairs of frames in constant memory, however long the video gets.

    At most twice as many pairs are kept as are shown; when they are full, every other one goes and from then on
    only half as many come in, so they stay evenly spread.
    """

    def __init__(self, portrait: np.ndarray, config: ContactSheetConfig | None = None) -> None:
        self._config = config or ContactSheetConfig()
        self._portrait = portrait
        self._pairs: list[Sequence[np.ndarray]] = []
        self._stride, self._seen = 1, 0

    @property
    def state(self) -> tuple[Any, ...]:
        """Everything collected so far; may be set."""
        return self._pairs, self._stride, self._seen

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        self._pairs, self._stride, self._seen = list(state[0]), state[1], state[2]

    def add(self, driver: np.ndarray | None, result: np.ndarray) -> None:
        """Offer the pair of one frame, each (S, S, 3) uint8; None in all frames of a video or in none."""
        if self._seen % self._stride == 0:
            self._pairs.append([self._cell(frame) for frame in (driver, result) if frame is not None])
            if len(self._pairs) >= 2 * self._config.columns:
                self._pairs, self._stride = self._pairs[::2], 2 * self._stride
        self._seen += 1

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8: portrait on the left, drivers above, results below."""
        pairs = [self._pairs[i] for i in _spread(len(self._pairs), self._config.columns)]
        side, gap = self._config.cell_px, self._config.gap_px
        step = side + gap
        rows = max(map(len, pairs), default=1)
        page = np.full((rows * step + gap, (1 + len(pairs)) * step + gap, 3), self._config.background_grey, np.uint8)
        middle = (page.shape[0] - side) // 2
        page[middle : middle + side, gap : gap + side] = self._cell(self._portrait)
        for column, pair in enumerate(pairs, start=1):
            for row, cell in enumerate(pair):
                y, x = gap + row * step, gap + column * step
                page[y : y + side, x : x + side] = cell
        return page

    def _cell(self, image: np.ndarray) -> np.ndarray:
        side = self._config.cell_px
        method = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
        return cv2.resize(image, (side, side), interpolation=method)


def _spread(count: int, wanted: int) -> list[int]:
    """Up to ``wanted`` indices of ``count`` things, first and last among them, evenly spread."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
