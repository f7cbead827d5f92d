"""Pacing of finished frames: they come a chunk at a time, and are shown one by one."""

from __future__ import annotations

from personalive.live.config import LiveConfig


class Pacer:
    """Spreads the frames of a chunk over the time until the next one, and never delays them by a chunk's length.

    Frames that would still wait when the next chunk is there delay it by half of that, so that the lag of one slow
    call is worked off over the next ones.
    """

    def __init__(self, count: int, config: LiveConfig) -> None:
        self._count, self._memory, self._silent_s = count, config.rate_memory, config.silent_s
        self._started: float | None = None
        self._last_shown = float("-inf")
        self.period_s: float | None = None  # estimated time between two frames

    def times(self, started: float, done: float) -> list[float]:
        """Return when to show the frames of a call that ran from ``started`` to ``done``."""
        if self._started is not None and started - self._started < self._silent_s:
            period = (started - self._started) / self._count
            old = period if self.period_s is None else self.period_s
            self.period_s = self._memory * old + (1 - self._memory) * period
        self._started = started
        period = self.period_s or (done - started) / self._count
        ahead = max(self._last_shown + period - done, 0.0)
        first = done + min(ahead / 2, period * self._count / 2)
        shown = [first + place * period for place in range(self._count)]
        self._last_shown = shown[-1]
        return shown
