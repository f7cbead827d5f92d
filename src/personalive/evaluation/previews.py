"""Previews of a case for the report: a few frames of the driver, the ground truth and every method, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Sample
from personalive.evaluation.methods import COPY, TRUTH
from personalive.vision.resize import ImageArray

DRIVER = "driver"
_CONFIG = EvaluationConfig()


class FrameSampler:
    """Evenly spread thumbnails of a video of unknown length, in constant memory.

    At most twice as many as are shown are kept; when they are full, every other one goes, and from then on only half
    as many come in.
    """

    def __init__(self) -> None:
        self._kept: list[ImageArray] = []
        self._stride, self._seen = 1, 0

    def add(self, image: ImageArray) -> None:
        """Take the next frame, (S, S, 3) uint8."""
        if self._seen % self._stride == 0:
            self._kept.append(_thumbnail(image))
            if len(self._kept) >= 2 * _CONFIG.preview_columns:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._seen += 1

    def images(self) -> list[ImageArray]:
        """At most ``preview_columns`` of them, first and last kept among them."""
        count, columns = len(self._kept), _CONFIG.preview_columns
        if count <= columns:
            return list(self._kept)
        return [self._kept[round(i * (count - 1) / (columns - 1))] for i in range(columns)]


@dataclass
class CasePreview:
    """Rows of thumbnails by name, and the portrait."""

    case: str
    kind: str
    portrait: ImageArray | None = None
    rows: dict[str, FrameSampler] = field(default_factory=dict)
    _drivers_from: str = ""

    def begin(self, method: str, portrait: ImageArray) -> None:
        """Start a method's row; the drivers are those of the first one."""
        if self.portrait is None:
            self.portrait = _thumbnail(portrait)
            self.rows[DRIVER] = FrameSampler()
            self._drivers_from = method
        shown_already = method == COPY or (method == TRUTH and self.kind == "self")
        if not shown_already:  # as the portrait or as the driver
            self.rows[method] = FrameSampler()

    def add(self, method: str, sample: Sample, output: ImageArray) -> None:
        """Take the next frame of the method that has begun."""
        if method == self._drivers_from:
            self.rows[DRIVER].add(sample.driver)
        if method in self.rows:
            self.rows[method].add(output)

    def images(self) -> dict[str, ImageArray]:
        """Each row as one image (cell, columns x cell, 3) uint8."""
        rows = {name: sampler.images() for name, sampler in self.rows.items()}
        return {name: np.concatenate(images, axis=1) for name, images in rows.items() if images}


def _thumbnail(image: ImageArray) -> ImageArray:
    side = _CONFIG.preview_cell_px
    method = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(image, (side, side), interpolation=method)  # pyright: ignore[reportReturnType]
