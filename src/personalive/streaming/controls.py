"""How the driver's motion reaches the portrait: what a person may turn while a stream runs (ours)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from personalive.config import ControlLimits
from personalive.errors import InputError

PoseMode = Literal["absolute", "relative"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """Values for the frames that enter next; frames in flight keep theirs. The defaults change nothing.

    Raises:
        InputError: a value outside its range, with the range.
    """

    expression: float = 1.0  # 0..2: how far the face leaves the portrait's own expression; 1 as the driver's does
    head_motion: float = 1.0  # 0..2: how far the head leaves the portrait's own pose and place
    pose: PoseMode = "absolute"  # the driver's angles, or "relative": their changes since the neutral frame
    smoothing: float = 0.0  # 0..0.95: share of the last frame's motion that is kept in the next

    def __post_init__(self) -> None:
        limits = ControlLimits()
        for name, high in (
            ("expression", limits.max_strength),
            ("head_motion", limits.max_strength),
            ("smoothing", limits.max_smoothing),
        ):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and 0 <= value <= high):
                raise InputError(f"{name} {value!r}: give a number from 0 to {high:g}")
        if self.pose not in get_args(PoseMode):
            raise InputError(f"pose {self.pose!r}: give {' or '.join(get_args(PoseMode))}")


CONTROL_NAMES = tuple(field.name for field in fields(Controls))
