"""Any frame times to a constant rate, frame by frame, without avoidable repeats (ours).

The rule. Output k is due at ``origin + k * step``, where origin is the time of the first frame. It shows the
source frame nearest to that time. Where that frame was shown already and the next one is at most half a step
(and ``slack`` steps) away, the next one is shown instead: times that jitter around the middle between two
outputs then repeat and skip nothing. Where two source frames lie more than ``max_gap_s`` apart, the grid starts
anew at the later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pick(Generic[T]):
    """One output: what it shows and why.

    ``time`` is when it is due, ``source_time`` the time of the frame it shows; both in seconds of the source.
    """

    item: T
    time: Fraction
    source_time: Fraction
    repeated: bool  # shows the same frame as the output before
    restart: bool  # the first one after a gap in the source


class Resampler(Generic[T]):
    """Takes frames in order of time and gives outputs as soon as they are certain. Holds one frame."""

    def __init__(self, fps: int, slack: float, max_gap_s: float) -> None:
        """
        Args:
            fps: outputs per second.
            slack: see above, in steps.
            max_gap_s: see above.
        """
        self._step = Fraction(1, fps)
        self._reach = self._step * (Fraction(1, 2) + Fraction(str(slack)))
        self._max_gap = Fraction(str(max_gap_s))
        self._held: tuple[T, Fraction] | None = None
        self._shown = False  # whether the held frame was
        self._gap = self._step  # between the last two frames
        self._due = Fraction(0)
        self._restart = False

    def push(self, item: T, time: Fraction) -> list[Pick[T]]:
        """The next frame; times must increase. Gives the outputs due before it."""
        if self._held is None:
            self._begin(item, time)
            return []
        if time - self._held[1] > self._max_gap:
            rest = self.flush()
            self._begin(item, time)
            self._restart = True
            return rest
        picks: list[Pick[T]] = []
        self._gap = time - self._held[1]
        while self._due < time:
            if self._takes_next(time):  # whether it is shown once more, the frame after it may decide
                self._held, self._shown = (item, time), True
                return [*picks, self._pick(item, time, repeated=False)]
            picks.append(self._pick_held())
        self._held, self._shown = (item, time), False
        return picks

    def flush(self) -> list[Pick[T]]:
        """The last outputs: those due before the last frame, and it itself, if it still shows when it is due."""
        picks: list[Pick[T]] = []
        while self._held is not None and self._due < self._held[1]:
            picks.append(self._pick_held())
        if self._held is not None and not self._shown and self._due - self._held[1] <= min(self._gap, self._step) / 2:
            picks.append(self._pick_held())
        return picks

    def _begin(self, item: T, time: Fraction) -> None:
        self._held, self._shown, self._due = (item, time), False, time

    def _takes_next(self, time: Fraction) -> bool:
        assert self._held is not None
        before, after = abs(self._due - self._held[1]), time - self._due
        return after < before or (self._shown and after <= self._reach)

    def _pick_held(self) -> Pick[T]:
        assert self._held is not None
        repeated, self._shown = self._shown, True
        return self._pick(*self._held, repeated=repeated)

    def _pick(self, item: T, source_time: Fraction, *, repeated: bool) -> Pick[T]:
        pick = Pick(item, self._due, source_time, repeated, self._restart)
        self._due += self._step
        self._restart = False
        return pick
