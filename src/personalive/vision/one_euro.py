"""One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): calm at rest, without lag in fast motion.

A low-pass whose cutoff rises with the speed of what it filters. Frames are its unit of time: motion comes without
times. At a higher frame rate it filters less in each second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class OneEuroConfig:
    """Cutoffs in cycles per frame."""

    min_cutoff: float  # at rest
    speed_gain: float | tuple[float, ...]  # added for each unit per frame; one for all values, or one for each
    speed_cutoff: float = 1 / 15  # of the low-pass on the speed itself


@dataclass(frozen=True, eq=False)
class OneEuro:
    """Filter after a frame; a value, as all of a stream's state.

    Attributes:
        config: of this filter.
        measured, value, speed: (n,) the last input, the filtered value, and its filtered change per frame.
    """

    config: OneEuroConfig
    measured: np.ndarray
    value: np.ndarray
    speed: np.ndarray

    @classmethod
    def at(cls, config: OneEuroConfig, measured: np.ndarray) -> OneEuro:
        """Begin at rest with the first (n,) values."""
        return cls(config, measured, measured, np.zeros_like(measured))

    def next(self, measured: np.ndarray) -> OneEuro:
        """The filter after one frame more, of (n,) values."""
        share = _share(self.config.speed_cutoff)
        speed = share * (measured - self.measured) + (1 - share) * self.speed
        share = _share(self.config.min_cutoff + np.asarray(self.config.speed_gain) * np.abs(speed))
        value = share * measured + (1 - share) * self.value
        return OneEuro(self.config, measured, value.astype(measured.dtype), speed.astype(measured.dtype))


def _share(cutoff: float | np.ndarray) -> float | np.ndarray:
    """Share of a new value in a first-order low-pass with this cutoff."""
    ratio = 2 * math.pi * cutoff
    return ratio / (ratio + 1)
