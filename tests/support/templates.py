"""Motion files of made-up motion."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from personalive.engine.state import Motion
from personalive.offline.motion_file import MotionClip
from personalive.vision.keypoints import HeadPose

_POSE = [field.name for field in dataclasses.fields(HeadPose)]


def made_template(frames: int = 6, reader: str = "0123456789abcdef", **changes: Any) -> MotionClip:
    """Random motion of the small model's shape at 25 fps."""
    source = torch.Generator().manual_seed(frames)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source)

    poses = HeadPose(
        kp=draw(frames, 21, 3),
        yaw=draw(frames),
        pitch=draw(frames),
        roll=draw(frames),
        t=draw(frames, 3),
        scale=draw(frames, 1).abs() + 1,
    )
    values: dict[str, Any] = {
        "motion": Motion(draw(1, frames, 4, 8), poses),
        "times_s": np.arange(frames) / 25,
        "cuts": np.arange(frames) % 4 == 3,
        "reader": reader,
        "fps": Fraction(25),
        "duration_s": frames / 25,
    }
    return MotionClip(**values | changes)


def assert_equal(one: MotionClip, other: MotionClip) -> None:
    """Every value, to the bit."""
    assert torch.equal(one.motion.tokens, other.motion.tokens)
    for name in _POSE:
        assert torch.equal(getattr(one.motion.poses, name), getattr(other.motion.poses, name)), name
    assert np.array_equal(one.times_s, other.times_s)
    assert np.array_equal(one.cuts, other.cuts)
    beside = ("reader", "fps", "duration_s", "time_base")
    assert [getattr(one, name) for name in beside] == [getattr(other, name) for name in beside]
