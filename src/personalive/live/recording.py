"""Recording of a live stream's motion, from which a motion file is made."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from personalive.engine.base import BaseEngine
from personalive.engine.state import Motion
from personalive.errors import InputError
from personalive.live.config import LiveConfig
from personalive.media.config import MediaConfig
from personalive.offline.motion_file import MotionClip, engine_motion_digest

_TICKS_PER_S = MediaConfig.default_ticks_per_s


class Recording:
    """Motion and its times by the driver's clock. For the worker's thread alone."""

    def __init__(self, config: LiveConfig) -> None:
        self._limit_s = config.recorded_s
        self._step_s = 1.0 / config.assumed_camera_fps  # until a second chunk shows it
        self._times: list[float] = []
        self._cuts: list[bool] = []
        self._motion: list[Motion] = []

    def add(self, time_s: float, motion: Motion, cuts: Sequence[bool]) -> None:
        """Add a chunk that ends at ``time_s``; one that only repeats motion is ignored."""
        count = len(motion)
        before = self._times[-1] if self._times else time_s - count * self._step_s
        if time_s <= before or (self._times and time_s - self._times[0] > self._limit_s):
            return
        self._times += [before + (time_s - before) * (place + 1) / count for place in range(count)]
        self._cuts += cuts
        self._motion.append(motion)

    def to_clip(self, engine: BaseEngine) -> MotionClip:
        """Return the recording, its times from zero on.

        Raises:
            InputError: it is empty.
        """
        if not self._motion:
            raise InputError("no motion was recorded: drive while it records")
        ticks = np.round((np.array(self._times) - self._times[0]) * _TICKS_PER_S)
        order = np.arange(len(ticks))
        ticks = np.maximum.accumulate(ticks - order) + order  # never two at once
        step = (ticks[-1] / (len(ticks) - 1) if len(ticks) > 1 else self._step_s * _TICKS_PER_S) or 1.0
        return MotionClip(
            motion=Motion.cat(self._motion),
            times_s=ticks / _TICKS_PER_S,
            cuts=np.array(self._cuts),
            reader=engine_motion_digest(engine),
            fps=Fraction(_TICKS_PER_S / step).limit_denominator(1001),
            duration_s=float((ticks[-1] + step) / _TICKS_PER_S),
        )
