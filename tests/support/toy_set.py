"""A training set that is drawn in no time: soft blobs that move, one colour per person."""

from __future__ import annotations

import numpy as np

from personalive.training.sets import Clip, Pair


class ToySet:
    """Pictures of ``size_px``; a person is a colour, a performance a path of three blobs."""

    def __init__(self, size_px: int = 64) -> None:
        self.size_px = size_px
        self.pairs = 0  # asked for so far

    def pair(self, rng: np.random.Generator) -> Pair:
        self.pairs += 1
        colours, phase = rng.uniform(0, 255, (4, 3)), rng.uniform(0, 6)
        target = self._picture(colours, phase + rng.uniform(1, 2))
        return Pair(self._picture(colours, phase), target, target, self._masks(), "toy")

    def clip(self, rng: np.random.Generator, frames: int = 40, stride: int = 4) -> Clip:
        colours, phase = rng.uniform(0, 255, (4, 3)), rng.uniform(0, 6)
        shown = np.stack([self._picture(colours, phase + 0.05 * stride * i) for i in range(frames)])
        masks = np.stack([self._masks()] * frames)
        return Clip(self._picture(colours, phase + rng.uniform(0, 2)), shown, shown, masks, "toy")

    def _picture(self, colours: np.ndarray, phase: float) -> np.ndarray:
        line = np.linspace(-1, 1, self.size_px)
        picture = np.tile(colours[0], (self.size_px, self.size_px, 1))
        for i, colour in enumerate(colours[1:]):
            x, y = 0.5 * np.cos(phase + 2 * i), 0.5 * np.sin(phase + 2 * i)
            share = np.exp(-((line[None] - x) ** 2 + (line[:, None] - y) ** 2) / 0.08)[..., None]
            picture = (1 - share) * picture + share * colour
        return picture.round().astype(np.uint8)

    def _masks(self) -> np.ndarray:
        third, masks = self.size_px // 3, np.zeros((3, self.size_px, self.size_px), bool)
        for mask, (low, high) in zip(masks, ((0, 2), (0, 1), (1, 2)), strict=True):
            mask[low * third : high * third, low * third : high * third] = True
        return masks
