"""Measures of a whole run: values per frame, and time stamps in seconds on any one clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Series = Sequence[float] | np.ndarray
_STILL = 1e-9  # a side that varies less than this does not vary


def correlation(one: Series, other: Series) -> float:
    """Pearson's correlation of two equally long series, in [-1, 1]; 0 where a side does not vary."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if len(one) < 2 or one.std() < _STILL or other.std() < _STILL:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def drift(values: Series, span: int) -> float:
    """Mean of the last ``span`` values minus mean of the first ``span``; not a number for fewer than twice as many.

    Of an error per frame, a positive drift means that long runs get worse (ours).
    """
    if span < 1 or len(values) < 2 * span:
        return math.nan
    series = np.asarray(values, np.float64)
    return float(series[-span:].mean() - series[:span].mean())


def fps(frames: int, seconds: float) -> float:
    """Frames per second; not a number where no time has passed."""
    return frames / seconds if seconds > 0 else math.nan


def inter_chunk_latency_ms(left_s: Series) -> float:
    """Mean time in milliseconds between chunks that leave (the paper's "latency"); not a number for fewer than two.

    Args:
        left_s: when each chunk left, in order.
    """
    if len(left_s) < 2:
        return math.nan
    return float(1000 * np.diff(np.asarray(left_s, np.float64)).mean())


def motion_to_photon_ms(entered_s: Series, left_s: Series) -> np.ndarray:
    """Milliseconds from each driving frame's (or chunk's) arrival to the departure of the picture it made.

    Args:
        entered_s, left_s: equally long; the n-th of both belong to the same frame.

    Raises:
        ValueError: different lengths, or a picture that left before its driving frame came.
    """
    entered, left = np.asarray(entered_s, np.float64), np.asarray(left_s, np.float64)
    if entered.shape != left.shape:
        raise ValueError(f"{entered.size} arrivals and {left.size} departures do not belong together")
    if (left < entered).any():
        raise ValueError("a picture left before the frame that drives it came")
    return 1000 * (left - entered)


def percentiles(values: Series, shares: Sequence[float]) -> tuple[float, ...]:
    """The values below which the given percentages (0..100) lie, linear in between; not a number without values."""
    if not len(values):
        return (math.nan,) * len(shares)
    return tuple(float(value) for value in np.percentile(np.asarray(values, np.float64), shares))
