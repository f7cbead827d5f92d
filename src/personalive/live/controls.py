"""Controls that may change while a session runs: the engine's, and those of live streams alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from personalive.config import KeyframeConfig
from personalive.engine.controls import RANGES, Controls, check_number, check_steps
from personalive.errors import InputError
from personalive.vision.paste_back import OutputFrame

_SEEDS = 2**63
_LIVE_RANGES = {"driving_fps": (1.0, 60.0), "keyframe_threshold": (0.0, 1e6), "delay_ms": (0.0, 3000.0)}


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveControls(Controls):
    """``Controls`` and those that only a live stream has (docs/protocol.md).

    Raises:
        InputError: a value outside its range.
    """

    seed: int = 0  # of the noise of frames that enter from now on
    mirror: bool = False  # the driver's left and right exchanged
    visible_mark: bool = False  # a small label on every frame
    output_frame: OutputFrame = "square"  # what is shown: the animated square, or the whole photograph with it
    driving_fps: float | None = None  # frames generated per second; None: as many as help
    keyframes: bool = True
    keyframe_threshold: float = KeyframeConfig.threshold
    steps: int | None = None  # of denoising; another number begins anew; None: see ``BaseEngine.live_steps``
    delay_ms: float = 0.0  # least time from a driving frame's arrival to its result's display

    def __post_init__(self) -> None:
        Controls.__post_init__(self)
        for name, (low, high) in _LIVE_RANGES.items():
            if name != "driving_fps" or self.driving_fps is not None:
                check_number(name, getattr(self, name), low, high)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < _SEEDS:
            raise InputError(f"seed {self.seed!r}: give a whole number from 0 to {_SEEDS - 1}")
        if self.steps is not None:
            check_steps(self.steps)
        for name in ("mirror", "visible_mark", "keyframes"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} {getattr(self, name)!r}: give true or false")
        if self.output_frame not in (frames := get_args(OutputFrame)):
            raise InputError(f"output_frame {self.output_frame!r}: give {' or '.join(frames)}")

    def changed(self, values: Mapping[str, Any]) -> LiveControls:
        """Return a copy with some values changed.

        Raises:
            InputError: an unknown name, or a value outside its range.
        """
        known = tuple(asdict(self))
        if unknown := [name for name in values if name not in known]:
            raise InputError(f"unknown control {unknown[0]!r}: there are {', '.join(known)}")
        return replace(self, **values)

    @property
    def threshold(self) -> float:
        """Keyframe threshold for the engine: infinite where keyframes are off."""
        return self.keyframe_threshold if self.keyframes else math.inf


def control_ranges(max_steps: int = 0) -> dict[str, dict[str, Any]]:
    """Return the default of each control, with ``min`` and ``max`` of numbers, as in ``GET /api/status``.

    Args:
        max_steps: of the model; 0 where it has no denoising steps, or is not known yet.
    """
    numbers = RANGES | _LIVE_RANGES | {"seed": (0, _SEEDS - 1)} | ({"steps": (1, max_steps)} if max_steps else {})
    ranges = {name: {"min": low, "max": high} for name, (low, high) in numbers.items()}
    return {name: {"default": value, **ranges.get(name, {})} for name, value in asdict(LiveControls()).items()}
