"""Mouth, eyes and head read from pictures of synthetic people.

Mouth and eyes are read by analysis through synthesis: the true head is rendered in the true pose with a range of
mouth openings (or blinks, or gazes), and the one whose picture is nearest in that region is the reading. No network
of ours has a say in it. Head angles are read by the model's own motion extractor. What either reading is worth is
measured on the true pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from personalive.engine.engine import Engine
from personalive.evaluation.config import EvaluationConfig
from personalive.synthetic import EXPRESSION_NAMES, Identity, Motion, render


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing to read: the expressions set together, the range tried, and where it shows."""

    expressions: tuple[str, ...]
    low: float
    high: float
    eyes: bool  # in the eyes, else in the mouth


READINGS: Mapping[str, Reading] = {
    "mouth": Reading(("jawOpen",), 0.0, 1.0, eyes=False),
    "blink": Reading(("eyeBlinkLeft", "eyeBlinkRight"), 0.0, 1.0, eyes=True),
    "gaze_x": Reading(("eyeLookX",), -1.0, 1.0, eyes=True),
    "gaze_y": Reading(("eyeLookY",), -1.0, 1.0, eyes=True),
}
_CONFIG = EvaluationConfig()


def read(person: Identity, motion: Motion, frame: np.ndarray, reading: Reading) -> float:
    """Which value makes the true head look most like ``frame``, (S, S, 3) uint8.

    Args:
        motion: the true motion; its value of what is read is not used.

    Returns:
        A value between ``reading.low`` and ``reading.high``; the middle where the region cannot be seen.
    """
    values = np.linspace(reading.low, reading.high, _CONFIG.reading_steps)
    tried = [render(person, with_expressions(motion, reading.expressions, v), frame.shape[0]) for v in values]
    region = np.any([r.eyes_mask if reading.eyes else r.mouth_mask for r in tried], axis=0)
    if not region.any():
        return (reading.low + reading.high) / 2
    part = _box(region)
    wanted = frame[part].astype(np.float32)
    errors = np.array([np.square(r.image[part] - wanted).mean() for r in tried])
    return _lowest(values, errors)


def true_value(motion: Motion, reading: Reading) -> float:
    """What a perfect reading gives."""
    return motion[reading.expressions[0]]


def can_be_read(motion: Motion, reading: Reading) -> bool:
    """Whether the true picture shows it at all: closed lids hide where the eyes look."""
    lids = READINGS["blink"].expressions
    looks = reading.eyes and reading.expressions != lids
    return not looks or max(motion[name] for name in lids) <= _CONFIG.max_blink


def varies(true: np.ndarray) -> bool:
    """Whether a correlation with the true motion says anything: eyes that never blink cannot be followed."""
    return len(true) > 1 and float(np.ptp(true)) > 0


def with_expressions(motion: Motion, names: tuple[str, ...], value: float) -> Motion:
    """``motion`` with the named expressions at ``value``."""
    expression = motion.expression.copy()
    expression[[EXPRESSION_NAMES.index(name) for name in names]] = value
    return dataclasses.replace(motion, expression=expression)


@torch.no_grad()
def angles(engine: Engine, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch in degrees, each (F,), of (F, S, S, 3) uint8 frames, as the model's extractor reads them."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).to(engine.device, engine.dtype) / 127.5 - 1
    pose = engine.conditioner.extract(pixels)
    return pose.yaw.float().cpu().numpy(), pose.pitch.float().cpu().numpy()


def _box(region: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.nonzero(region)
    m = _CONFIG.region_margin_px
    return np.s_[max(0, rows.min() - m) : rows.max() + m, max(0, columns.min() - m) : columns.max() + m]


def _lowest(values: np.ndarray, errors: np.ndarray) -> float:
    """Where a parabola through the lowest error and its neighbours has its bottom."""
    i = int(errors.argmin())
    if i in (0, len(values) - 1):
        return float(values[i])
    left, middle, right = errors[i - 1 : i + 2]
    bend = left - 2 * middle + right
    return float(values[i] + (values[1] - values[0]) * 0.5 * (left - right) / bend) if bend > 0 else float(values[i])
