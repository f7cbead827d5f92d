"""One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): calm at rest, without lag in fast motion.

A low-pass whose cutoff rises with the speed of what it filters. Frames are its unit of time: motion comes without
times. At a higher frame rate it filters less in each second.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch

from personalive.vision.keypoints import HeadPose


@dataclass(frozen=True, kw_only=True)
class OneEuroConfig:
    """Cutoffs in cycles per frame."""

    min_cutoff: float  # at rest
    speed_gain: float | tuple[float, ...]  # added for each unit per frame; one for all values, or one for each
    speed_cutoff: float = 1 / 15  # of the low-pass on the speed itself


# Of ``pose_values``, chosen on noisy drivers of 15 frames a second (ours).
POSE_CALM = OneEuroConfig(min_cutoff=4 / 15, speed_gain=(0.5, 0.5, 3.0, 50.0, 50.0, 50.0))


@dataclass(frozen=True, eq=False)
class OneEuro:
    """Filter after a frame; a value, as all of a stream's state.

    Attributes:
        config: of this filter.
        measured, value, speed: (n,) the last input, the filtered value, and its filtered change per frame.
    """

    config: OneEuroConfig
    measured: np.ndarray
    value: np.ndarray
    speed: np.ndarray

    @classmethod
    def at(cls, config: OneEuroConfig, measured: np.ndarray) -> OneEuro:
        """Begin at rest with the first (n,) values."""
        return cls(config, measured, measured, np.zeros_like(measured))

    def next(self, measured: np.ndarray) -> OneEuro:
        """The filter after one frame more, of (n,) values."""
        share = _share(self.config.speed_cutoff)
        speed = share * (measured - self.measured) + (1 - share) * self.speed
        share = _share(self.config.min_cutoff + np.asarray(self.config.speed_gain) * np.abs(speed))
        value = share * measured + (1 - share) * self.value
        return OneEuro(self.config, measured, value.astype(measured.dtype), speed.astype(measured.dtype))


def pose_values(poses: HeadPose) -> np.ndarray:
    """(F, 6) float64: yaw, pitch, roll in degrees, shift x and y in half image sides, scale."""
    columns = [poses.yaw, poses.pitch, poses.roll, poses.t[:, 0], poses.t[:, 1], poses.scale[:, 0]]
    return torch.stack(columns, dim=1).double().cpu().numpy()


def calm_poses(
    poses: HeadPose, before: OneEuro | None, cuts: Collection[int] = ()
) -> tuple[HeadPose, OneEuro | None]:
    """Filter F head poses of a driver in the order of time.

    Args:
        before: filter after the pose before them; None begins at rest.
        cuts: numbers of the poses that begin a new shot: the filter begins anew there.

    Returns:
        The poses, and the filter after the last one.
    """
    found = []
    for number, values in enumerate(pose_values(poses)):
        before = OneEuro.at(POSE_CALM, values) if before is None or number in cuts else before.next(values)
        found.append(before.value)
    if not found:
        return poses, before
    calm = torch.from_numpy(np.stack(found)).to(poses.yaw)
    t = torch.cat([calm[:, 3:5], poses.t[:, 2:]], dim=1)
    return replace(poses, yaw=calm[:, 0], pitch=calm[:, 1], roll=calm[:, 2], t=t, scale=calm[:, 5:]), before


def _share(cutoff: float | np.ndarray) -> float | np.ndarray:
    """Share of a new value in a first-order low-pass with this cutoff."""
    ratio = 2 * math.pi * cutoff
    return ratio / (ratio + 1)
