"""A small engine in which everything matters, and videos of known images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from personalive.engine.engine import Engine
from personalive.media.writer import VideoWriter
from support.small_engine import small_engine


@pytest.fixture(scope="session", name="small_engine")
def _small_engine() -> Engine:
    return small_engine()


@pytest.fixture(scope="session")
def write_video():
    """``write_video(path, images)``: nearly lossless, 25 frames per second."""

    def write(path: Path, images: np.ndarray) -> Path:
        height, width = images.shape[1:3]
        with VideoWriter(path, width, height, time_base=Fraction(1, 25), fps=Fraction(25), crf=4) as video:
            for index, image in enumerate(images):
                video.write(image, Fraction(index, 25), Fraction(1, 25))
        return path

    return write


@pytest.fixture(scope="session")
def moving():
    """``moving(count, seed, side)``: smooth images that change slowly, (count, side, side, 3) uint8."""

    def make(count: int, seed: int = 0, side: int = 64) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:side, 0:side] / side
        phases, waves = rng.uniform(0, 6, 3), rng.uniform(2, 5, (3, 2))
        frames = [
            np.stack([np.sin(a * x + b * y + p + t / 8) for p, (a, b) in zip(phases, waves, strict=True)], axis=-1)
            for t in range(count)
        ]
        return np.round((np.stack(frames) + 1) * 100 + 20).astype(np.uint8)

    return make
