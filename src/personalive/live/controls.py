"""All that a person may turn while a session runs: the engine's controls, and those of the live path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from personalive.config import KeyframeConfig
from personalive.engine.controls import ControlLimits, Controls, check_number
from personalive.errors import InputError

_SEEDS = 2**63


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveControls(Controls):
    """``Controls`` and what only a live stream has (docs/protocol.md).

    Raises:
        InputError: a value outside its range.
    """

    seed: int = 0  # of the noise that enters from now on
    mirror: bool = False  # the driver's left and right exchanged
    driving_fps: float | None = None  # frames made per second; None: as many as help
    keyframes: bool = True
    keyframe_threshold: float = KeyframeConfig.threshold
    delay_ms: float = 0.0  # frames are shown no sooner than this after their driving frame came in

    def __post_init__(self) -> None:
        Controls.__post_init__(self)
        limits = ControlLimits()
        if self.driving_fps is not None:
            check_number("driving_fps", self.driving_fps, 1.0, limits.max_driving_fps)
        check_number("keyframe_threshold", self.keyframe_threshold, 0.0, 1e6)
        check_number("delay_ms", self.delay_ms, 0.0, limits.max_delay_ms)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < _SEEDS:
            raise InputError(f"seed {self.seed!r}: give a whole number from 0 to {_SEEDS - 1}")
        for name in ("mirror", "keyframes"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} {getattr(self, name)!r}: give true or false")

    def changed(self, values: Mapping[str, Any]) -> LiveControls:
        """These with some values changed.

        Raises:
            InputError: an unknown name, or a value outside its range.
        """
        known = tuple(asdict(self))
        if unknown := [name for name in values if name not in known]:
            raise InputError(f"unknown control {unknown[0]!r}: there are {', '.join(known)}")
        return replace(self, **values)

    @property
    def threshold(self) -> float:
        """Of keyframes, as the engine wants it."""
        return self.keyframe_threshold if self.keyframes else math.inf
