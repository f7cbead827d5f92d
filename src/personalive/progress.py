"""State of a long job, in the one form that every job reports and every display reads."""

from __future__ import annotations

import time
from dataclasses import dataclass

_MIN_SECONDS = 1.0  # of work, or
_MIN_BYTES_SHARE = 0.01  # of the bytes of a job before a time left is worth reporting
_MIN_SHARE = 0.03  # of the job, before a speed and a time left are worth reporting


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a job: what is done of how much, and how fast."""

    done: float
    total: float | None  # None where nobody knows; of a video as its header says, which may be wrong
    rate: float | None = None  # units per second; None until it is known
    unit: str = "frames"  # "bytes" are displayed as kB, MB and GB; "" is a share, whose total is 1
    label: str = ""  # the step of the job, such as "loading"
    note: str = ""  # anything else worth a few words: the file at hand, the loss

    @property
    def frames(self) -> int:
        """Finished frames, of a video or recording."""
        return int(self.done)

    @property
    def fps(self) -> float:
        """Finished frames per second; 0 until it is known."""
        return self.rate or 0.0

    @property
    def left_s(self) -> float | None:
        """Expected seconds to the end; None where the total or the rate is not known."""
        if self.total is None or not self.rate or self.done > self.total:
            return None
        if self.unit == "bytes" and self.done < _MIN_BYTES_SHARE * self.total:  # files are opened, disks wake up
            return None
        return (self.total - self.done) / self.rate


class Meter:
    """Clock of a job that turns its counts into ``Progress``."""

    def __init__(self, total: float | None, unit: str = "frames", *, found: float = 0.0, label: str = "") -> None:
        """Start the clock.

        Args:
            total: units of the whole job, if known.
            unit: see ``Progress``.
            found: units that earlier runs have done: they count as done and not for the rate.
            label: see ``Progress``.
        """
        self.total, self.found = total, found
        self._unit, self._label, self._started = unit, label, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start, above 0."""
        return max(time.monotonic() - self._started, 1e-9)

    def at(self, done: float, note: str = "") -> Progress:
        """Return the state with ``done`` units finished."""
        seconds, made = self.seconds, done - self.found
        known = seconds >= _MIN_SECONDS or (self.total and made >= _MIN_SHARE * (self.total - self.found))
        return Progress(done, self.total, max(made, 0) / seconds if known else None, self._unit, self._label, note)


def clock(seconds: float) -> str:
    """Seconds as ``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
