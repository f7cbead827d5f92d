"""Pictures of a case for the report: a few moments of it, driver, truth and every contender below each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.contenders import COPY, TRUTH
from personalive.evaluation.datasets import Moment
from personalive.vision.resize import ImageArray

DRIVER = "driver"
_CONFIG = EvaluationConfig()


class Moments:
    """Evenly spread pictures of a film of unknown length, in constant memory.

    At most twice as many as are shown are kept; when they are full, every other one goes, and from then on only half
    as many come in.
    """

    def __init__(self) -> None:
        self._kept: list[ImageArray] = []
        self._stride, self._seen = 1, 0

    def add(self, picture: ImageArray) -> None:
        """The next frame, (S, S, 3) uint8."""
        if self._seen % self._stride == 0:
            self._kept.append(_cell(picture))
            if len(self._kept) >= 2 * _CONFIG.shown_columns:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._seen += 1

    def pictures(self) -> list[ImageArray]:
        """At most ``shown_columns`` of them, first and last kept among them."""
        count, wanted = len(self._kept), _CONFIG.shown_columns
        if count <= wanted:
            return list(self._kept)
        return [self._kept[round(i * (count - 1) / (wanted - 1))] for i in range(wanted)]


@dataclass
class Strip:
    """One case: rows of pictures by name, the portrait in front of each."""

    case: str
    kind: str
    portrait: ImageArray | None = None
    rows: dict[str, Moments] = field(default_factory=dict)
    _drivers_from: str = ""

    def begin(self, contender: str, portrait: ImageArray) -> None:
        """A contender's frames come next; the drivers are those of the first one."""
        if self.portrait is None:
            self.portrait = _cell(portrait)
            self.rows[DRIVER] = Moments()
            self._drivers_from = contender
        shown_already = contender == COPY or (contender == TRUTH and self.kind == "self")
        if not shown_already:  # as the portrait or as the driver
            self.rows[contender] = Moments()

    def add(self, contender: str, moment: Moment, output: ImageArray) -> None:
        """The next frame of the contender that has begun."""
        if contender == self._drivers_from:
            self.rows[DRIVER].add(moment.driver)
        if contender in self.rows:
            self.rows[contender].add(output)

    def pages(self) -> dict[str, ImageArray]:
        """Each row as one picture (cell, columns x cell, 3) uint8, without the portrait."""
        shown = {name: moments.pictures() for name, moments in self.rows.items()}
        return {name: np.concatenate(pictures, axis=1) for name, pictures in shown.items() if pictures}


def _cell(picture: ImageArray) -> ImageArray:
    side = _CONFIG.shown_cell_px
    method = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(picture, (side, side), interpolation=method)  # pyright: ignore[reportReturnType]
