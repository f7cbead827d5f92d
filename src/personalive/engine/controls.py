"""Controls of how the driver's motion reaches the portrait, changeable while a stream runs (ours)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from personalive.errors import InputError

PoseMode = Literal["absolute", "relative"]


@dataclass(frozen=True, kw_only=True)
class ControlLimits:
    """Ranges of what a person may turn."""

    max_strength: float = 2.0  # of expression and head motion; beyond, faces fall apart
    max_smoothing: float = 0.95  # a half-life of 13 frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """Values for the frames that enter next; frames in flight keep theirs. The defaults change nothing.

    Raises:
        InputError: a value outside its range, with the range.
    """

    expression: float = 1.0  # 0..2: how far the face leaves the portrait's own expression; 1 as the driver's does
    mouth: float = 1.0  # 0..2: how far the mouth opens; 0 keeps it shut, whatever else the face does
    eyes: float = 1.0  # 0..2: how far the lids close
    head_motion: float = 1.0  # 0..2: how far the head leaves the portrait's own pose and place
    pose: PoseMode = "absolute"  # the driver's angles, or "relative": their changes since the neutral frame
    smoothing: float = 0.0  # 0..0.95: share of the last frame's motion that is kept in the next

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            check_number(name, getattr(self, name), low, high)
        if self.pose not in get_args(PoseMode):
            raise InputError(f"pose {self.pose!r}: give {' or '.join(get_args(PoseMode))}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is no number from ``low`` to ``high``.

    Raises:
        InputError: with the name and the range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and low <= value <= high):
        raise InputError(f"{name} {value!r}: give a number from {low:g} to {high:g}")


def check_steps(steps: Any, most: int | None = None) -> None:
    """Refuse what is no number of denoising steps.

    Args:
        most: those of the model, 0 where it has none; None where it is not known yet.

    Raises:
        InputError: with the range.
    """
    if most == 0:
        raise InputError(f"steps {steps!r}: this model has no denoising steps: leave them out")
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= (steps if most is None else most):
        known = "1 up" if most is None else f"1 to {most}"
        raise InputError(f"steps {steps!r}: give a whole number from {known}")


_LIMITS = ControlLimits()
RANGES = {  # both ends included
    **dict.fromkeys(("expression", "mouth", "eyes", "head_motion"), (0.0, _LIMITS.max_strength)),
    "smoothing": (0.0, _LIMITS.max_smoothing),
}
CONTROL_NAMES = tuple(field.name for field in fields(Controls))
