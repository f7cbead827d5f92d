"""Resampling of driving frames to a chunk's frames, by their times alone.

The camera's rate and the engine's differ. A chunk covers the driver's time since the last one: where more frames
came than it holds, those nearest to an even spacing are taken; where fewer came, motion between them is blended;
where none came, the last motion is repeated. So the result always runs at the driver's own speed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Pick:
    """Frame of a chunk: driving frames ``low`` and ``high``, blended by ``weight``; equal where one is not blended.

    Numbers count the new frames from 1; 0 is the last frame of the chunk before.
    """

    low: int
    high: int
    weight: float

    @property
    def nearest(self) -> int:
        """Number of the closer one of the two."""
        return self.high if self.weight >= 0.5 else self.low


def resample(times: Sequence[float], last: float | None, count: int) -> list[Pick]:
    """Return ``count`` picks, evenly spaced in the driver's time, that end with the newest frame.

    Args:
        times: of the new frames, rising.
        last: end time of the chunk before; None for the first chunk, which shows the newest frames, the first of them
            repeated where they are fewer.
        count: frames of a chunk.

    Raises:
        ValueError: no frame at all, or times that fall.
    """
    if any(later < earlier for earlier, later in pairwise(times)):
        raise ValueError("times must not fall")
    if last is None:
        if not times:
            raise ValueError("the first chunk needs a frame")
        numbers = range(len(times) - count + 1, len(times) + 1)
        return [_whole(max(number, 1)) for number in numbers]
    if not times or times[-1] <= last:
        return [_whole(0 if not times else len(times))] * count
    span = times[-1] - last
    wanted = [last + span * (step + 1) / count for step in range(count - 1)]
    known = [last, *times]
    picks = [_nearest(known, time) if len(times) >= count else _blended(known, time) for time in wanted]
    return [*picks, _whole(len(times))]


def _whole(number: int) -> Pick:
    return Pick(number, number, 0.0)


def _nearest(known: Sequence[float], time: float) -> Pick:
    """Pick the nearest of the new frames."""
    after = min(bisect_left(known, time, lo=1), len(known) - 1)
    before = max(after - 1, 1)
    return _whole(before if time - known[before] < known[after] - time else after)


def _blended(known: Sequence[float], time: float) -> Pick:
    after = min(max(bisect_left(known, time), 1), len(known) - 1)
    low, high = known[after - 1], known[after]
    return Pick(after - 1, after, (time - low) / (high - low) if high > low else 1.0)
