"""A training set that is drawn in no time: soft blobs that move, one colour per person."""

from __future__ import annotations

import numpy as np

from personalive.synthetic import EXPRESSION_NAMES
from personalive.training.data.sets import Clip, GroundTruth, Pair


class ToySet:
    """Images of ``size_px``; a person is a colour, a performance a path of three blobs."""

    def __init__(self, size_px: int = 64, *, other_driver: bool = False) -> None:
        self.size_px, self.other_driver = size_px, other_driver
        self.pairs = 0  # asked for so far

    def pair(self, rng: np.random.Generator) -> Pair:
        self.pairs += 1
        colours, others = rng.uniform(0, 255, (2, 4, 3))
        phase = rng.uniform(0, 6)
        later = phase + rng.uniform(1, 2)
        target = self._image(colours, later)
        driving = target if self.other_driver is False else self._image(others, later)
        truth = _truth(phase), _truth(later)
        return Pair(self._image(colours, phase), driving, target, self._masks(), "toy", truth)

    def clip(self, rng: np.random.Generator, frames: int = 40, stride: int = 4) -> Clip:
        colours, phase = rng.uniform(0, 255, (4, 3)), rng.uniform(0, 6)
        shown = np.stack([self._image(colours, phase + 0.05 * stride * i) for i in range(frames)])
        masks = np.stack([self._masks()] * frames)
        return Clip(self._image(colours, phase + rng.uniform(0, 2)), shown, shown, masks, "toy")

    def _image(self, colours: np.ndarray, phase: float) -> np.ndarray:
        line = np.linspace(-1, 1, self.size_px)
        image = np.tile(colours[0], (self.size_px, self.size_px, 1))
        for i, colour in enumerate(colours[1:]):
            x, y = 0.5 * np.cos(phase + 2 * i), 0.5 * np.sin(phase + 2 * i)
            share = np.exp(-((line[None] - x) ** 2 + (line[:, None] - y) ** 2) / 0.08)[..., None]
            image = (1 - share) * image + share * colour
        return image.round().astype(np.uint8)

    def _masks(self) -> np.ndarray:
        third, masks = self.size_px // 3, np.zeros((3, self.size_px, self.size_px), bool)
        for mask, (low, high) in zip(masks, ((0, 2), (0, 1), (1, 2)), strict=True):
            mask[low * third : high * third, low * third : high * third] = True
        return masks


def _truth(phase: float) -> GroundTruth:
    """A head that turns, and an expression of sines, with the phase."""
    waves = np.sin(phase * (1 + np.arange(len(EXPRESSION_NAMES)) % 3) + np.arange(len(EXPRESSION_NAMES)))
    pose = np.array([10 * np.cos(phase), 5 * np.sin(phase), 0, 1 + 0.1 * np.sin(phase), 0.1 * np.cos(phase), 0])
    line = np.linspace(-0.5, 0.5, 21)
    keypoints = np.stack([line, np.sin(9 * line) / 2, np.cos(7 * line) / 2], axis=1)
    return GroundTruth(keypoints.astype(np.float32), pose.astype(np.float32), waves.astype(np.float32))
