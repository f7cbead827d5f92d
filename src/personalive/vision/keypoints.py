"""Head poses and the 21 implicit keypoints they move. Pure tensor functions, all differentiable.

Axis letters: B poses (frames), K keypoints (21). Keypoints live in a square image whose x (right) and
y (down) run from -1 to 1; z is depth and matters only to the rotation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class HeadPose:
    """B head poses: whose head (``kp``, ``scale``) and how it is held (angles, ``t``); all floating point."""

    kp: Tensor  # (B, K, 3) canonical keypoints, before rotation
    yaw: Tensor  # (B,) degrees, about y
    pitch: Tensor  # (B,) degrees, about x
    roll: Tensor  # (B,) degrees, about z
    t: Tensor  # (B, 3) shift in half image sides; z is carried but never used
    scale: Tensor  # (B, 1)

    def __len__(self) -> int:
        return self.kp.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> HeadPose:
        """The chosen poses; the batch axis always stays, so ``pose[0]`` and ``pose[-1]`` hold one pose."""
        if isinstance(index, int):
            index = range(len(self))[index]  # IndexError when out of range, as for a list
            index = slice(index, index + 1)
        return self._map(lambda value: value[index])

    @staticmethod
    def cat(poses: Sequence[HeadPose]) -> HeadPose:
        """All poses, one after another."""
        parts = {f.name: torch.cat([getattr(pose, f.name) for pose in poses]) for f in fields(HeadPose)}
        return HeadPose(**parts)

    def tensors(self) -> list[Tensor]:
        """Everything a pose is made of."""
        return [getattr(self, f.name) for f in fields(self)]

    def detach(self) -> HeadPose:
        """The same numbers, cut from the autograd graph."""
        return self._map(Tensor.detach)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> HeadPose:
        """The same poses on another device, in another dtype, or both."""
        return self._map(lambda value: value.to(device=device, dtype=dtype))

    def _map(self, change: Callable[[Tensor], Tensor]) -> HeadPose:
        return HeadPose(**{f.name: change(getattr(self, f.name)) for f in fields(self)})


POSE_FIELDS = tuple(f.name for f in fields(HeadPose))


def rotation_matrix(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """(R_z(roll) · R_y(yaw) · R_x(pitch))ᵀ of angles in degrees (weights): row vectors times it are rotated.

    Args:
        pitch, yaw, roll: (B,) degrees.

    Returns:
        (B, 3, 3), orthogonal with determinant 1.
    """
    (sx, cx), (sy, cy), (sz, cz) = (_sin_cos(angle) for angle in (pitch, yaw, roll))
    rows = [
        (cz * cy, sz * cy, -sy),
        (cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx),
        (cz * sy * cx + sz * sx, sz * sy * cx - cz * sx, cy * cx),
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _sin_cos(degrees: Tensor) -> tuple[Tensor, Tensor]:
    radians = torch.deg2rad(degrees)
    return torch.sin(radians), torch.cos(radians)


def transform_keypoints(pose: HeadPose) -> Tensor:
    """Positions of the keypoints in the image: scale · (kp · R), x and y shifted by t (weights).

    Returns:
        (B, K, 3) in image units (see the top of this file).
    """
    turned = pose.kp @ rotation_matrix(pose.pitch, pose.yaw, pose.roll)
    shift = torch.cat([pose.t[:, :2], torch.zeros_like(pose.t[:, 2:])], dim=1)
    return pose.scale[:, :, None] * turned + shift[:, None]


def retarget(
    portrait: HeadPose,
    driving: HeadPose,
    first: HeadPose,
    *,
    gain: float,
    scale_gain: float = 0.0,
    strength: float = 1.0,
    relative: bool = False,
) -> HeadPose:
    """The driver's pose on the portrait's head (weights; ``strength`` and ``relative`` are ours).

    Keypoints and scale are the portrait's, angles the driver's; the portrait's place is moved by ``gain``
    times the driver's way since its first frame.

    Args:
        portrait: 1 or B poses.
        driving: B poses.
        first: the pose of the first driving frame, 1 or B.
        gain: share of the driver's shift (``ModelConfig.translation_gain``; 0.5 in the released model).
        scale_gain: power of the driver's change of size that reaches the portrait
            (``ModelConfig.scale_gain``; 0, none, in the released model).
        strength: how far the head leaves the portrait's own pose: 0 not at all, 1 as the driver's does.
        relative: the angles are the portrait's plus the driver's way since its first frame, instead of the
            driver's own.
    """
    count = len(driving)
    base = first if relative else portrait
    return HeadPose(
        kp=portrait.kp.expand(count, -1, -1),
        yaw=_turned(portrait.yaw, driving.yaw, base.yaw, strength),
        pitch=_turned(portrait.pitch, driving.pitch, base.pitch, strength),
        roll=_turned(portrait.roll, driving.roll, base.roll, strength),
        t=portrait.t + strength * gain * (driving.t - first.t),
        scale=_followed_scale(portrait, driving, first, strength * scale_gain),
    )


def _turned(portrait: Tensor, driving: Tensor, base: Tensor, strength: float) -> Tensor:
    """portrait + strength · (driving - base), and exactly ``driving`` where that is what it says."""
    if strength == 1.0 and base is portrait:
        return driving
    return portrait + strength * (driving - base)


def _followed_scale(portrait: HeadPose, driving: HeadPose, first: HeadPose, gain: float) -> Tensor:
    if gain == 0.0:
        return portrait.scale.expand(len(driving), -1)
    return portrait.scale * (driving.scale / first.scale).clamp(min=1e-3) ** gain


def as_held_by(head: HeadPose, pose: HeadPose) -> HeadPose:
    """Angles, place and size of ``pose`` on the keypoints of ``head``, B poses each; of one person, so no gains."""
    return HeadPose(kp=head.kp, yaw=pose.yaw, pitch=pose.pitch, roll=pose.roll, t=pose.t, scale=pose.scale)


def interpolate(start: HeadPose, end: HeadPose, weights: Tensor) -> HeadPose:
    """Poses on the straight line from ``start`` (weight 0) to ``end`` (weight 1).

    Angles, t and scale are blended; the keypoints stay those of ``start``, because they say whose head it is.

    Args:
        start, end: one pose each, or B.
        weights: (B,).
    """
    column = weights[:, None]
    return HeadPose(
        kp=start.kp.expand(len(weights), -1, -1),
        yaw=torch.lerp(start.yaw, end.yaw, weights),
        pitch=torch.lerp(start.pitch, end.pitch, weights),
        roll=torch.lerp(start.roll, end.roll, weights),
        t=torch.lerp(start.t, end.t, column),
        scale=torch.lerp(start.scale, end.scale, column),
    )


def interpolated_start(portrait: HeadPose, first: HeadPose, count: int, **manner: Any) -> HeadPose:
    """The ``count`` poses before the first driving frame (paper: motion-interpolated start).

    Weights 0/count ... (count-1)/count on the way from the portrait's own pose to the driver's first pose as
    the portrait takes it: the angles turn, the portrait's place and scale stay (weights).

    Args:
        portrait, first: one pose each; ``first`` is the driver's.
        count: poses wanted (``ModelConfig.warmup_frames``).
        **manner: ``strength`` and ``relative`` of ``retarget``.
    """
    weights = torch.arange(count, device=portrait.t.device, dtype=portrait.t.dtype) / count
    end = retarget(portrait, first, first, gain=0.0, **manner)  # relative to itself: any gain gives no shift
    return interpolate(portrait, end, weights)
