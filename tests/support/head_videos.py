"""Small videos of synthetic heads, which face detectors take for faces, at any times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from personalive.synthetic import Identity, Performance, render
from support.clips import write_clip

SIDE_PX = 160


def heads(seed: int, times: Iterable[float], *, side_px: int = SIDE_PX) -> Iterable[np.ndarray]:
    """Images (S, S, 3) of one calm person at the given seconds."""
    who, performance = Identity.sample(seed), Performance.sample(seed, fps=1000, intensity=0.3)
    return (render(who, performance.at(round(1000 * time)), side_px, supersample=1).image for time in times)


def write_heads(
    path: Path, ticks: Sequence[int], time_base: Fraction = Fraction(1, 25), *, seed: int = 0, side_px: int = SIDE_PX
) -> Path:
    """A video of one person at the given ticks."""
    images = heads(seed, [float(tick * time_base) for tick in ticks], side_px=side_px)
    return write_clip(path, images, ticks, time_base)


def write_images(path: Path, images: Iterable[np.ndarray]) -> Path:
    """A video of given images at 25 fps."""
    every = list(images)
    return write_clip(path, every, range(len(every)))
