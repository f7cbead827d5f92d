"""Mouth, eyes and head pose estimated from images of synthetic heads, whose true motion is known.

Mouth and eyes are estimated by analysis through synthesis: the true head is rendered in the true pose with a range
of mouth openings (or blinks, or gazes), and the value whose render is nearest in that region is the estimate. None of
our networks takes part in it. Head angles are estimated by the model's own motion extractor. How good an estimate is
shows on the ground truth itself.
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
class Probe:
    """Something that can be estimated: the expressions set together, the range tried, and where it shows."""

    expressions: tuple[str, ...]
    low: float
    high: float
    eyes: bool  # in the eyes, else in the mouth


PROBES: Mapping[str, Probe] = {
    "mouth": Probe(("jawOpen",), 0.0, 1.0, eyes=False),
    "blink": Probe(("eyeBlinkLeft", "eyeBlinkRight"), 0.0, 1.0, eyes=True),
    "gaze_x": Probe(("eyeLookX",), -1.0, 1.0, eyes=True),
    "gaze_y": Probe(("eyeLookY",), -1.0, 1.0, eyes=True),
}
_CONFIG = EvaluationConfig()


def estimate(person: Identity, motion: Motion, frame: np.ndarray, probe: Probe) -> float:
    """Value with which the true head looks most like ``frame``, (S, S, 3) uint8.

    Args:
        motion: the true motion; its value of what is estimated is not used.

    Returns:
        A value between ``probe.low`` and ``probe.high``; the middle where the region cannot be seen.
    """
    values = np.linspace(probe.low, probe.high, _CONFIG.estimate_steps)
    tried = [render(person, with_expressions(motion, probe.expressions, v), frame.shape[0]) for v in values]
    region = np.any([r.eyes_mask if probe.eyes else r.mouth_mask for r in tried], axis=0)
    if not region.any():
        return (probe.low + probe.high) / 2
    part = _box(region)
    target = frame[part].astype(np.float32)
    errors = np.array([np.square(r.image[part] - target).mean() for r in tried])
    return _lowest(values, errors)


def true_value(motion: Motion, probe: Probe) -> float:
    """Value that a perfect estimate gives."""
    return motion[probe.expressions[0]]


def is_visible(motion: Motion, probe: Probe) -> bool:
    """Tell whether the true image shows it at all: closed lids hide where the eyes look."""
    lids = PROBES["blink"].expressions
    is_gaze = probe.eyes and probe.expressions != lids
    return not is_gaze or max(motion[name] for name in lids) <= _CONFIG.max_blink


def varies(true: np.ndarray) -> bool:
    """Tell whether a correlation with the true motion means anything: eyes that never blink cannot be followed."""
    return len(true) > 1 and float(np.ptp(true)) > 0


def with_expressions(motion: Motion, names: tuple[str, ...], value: float) -> Motion:
    """Copy of ``motion`` with the named expressions at ``value``."""
    expression = motion.expression.copy()
    expression[[EXPRESSION_NAMES.index(name) for name in names]] = value
    return dataclasses.replace(motion, expression=expression)


@torch.no_grad()
def head_angles(engine: Engine, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch in degrees, each (F,), of (F, S, S, 3) uint8 frames, by the model's extractor."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).to(engine.device, engine.dtype) / 127.5 - 1
    pose = engine.conditioner.extract(pixels)
    return pose.yaw.float().cpu().numpy(), pose.pitch.float().cpu().numpy()


def _box(region: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.nonzero(region)
    m = _CONFIG.region_margin_px
    return np.s_[max(0, rows.min() - m) : rows.max() + m, max(0, columns.min() - m) : columns.max() + m]


def _lowest(values: np.ndarray, errors: np.ndarray) -> float:
    """Bottom of the parabola through the lowest error and its neighbours."""
    i = int(errors.argmin())
    if i in (0, len(values) - 1):
        return float(values[i])
    left, middle, right = errors[i - 1 : i + 2]
    bend = left - 2 * middle + right
    return float(values[i] + (values[1] - values[0]) * 0.5 * (left - right) / bend) if bend > 0 else float(values[i])
