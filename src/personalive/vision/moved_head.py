"""A picture with its head moved to another pose, by geometry alone (ours).

The head is taken for an ellipsoid around its implicit keypoints and turned as a rigid body; the shoulders follow
sideways and the background stays. What the ellipsoid does not know (hair, expression, what comes into view) stays
wrong and is the denoiser's to redraw.

Letters: B pictures, S picture side, K keypoints, s side of the computed field. Coordinates as in keypoints.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from personalive.config import HeadProxyConfig
from personalive.vision.fields import enlarged, places, sample
from personalive.vision.keypoints import HeadPose, rotation_matrix
from personalive.vision.transfer import constant

_PROXY = HeadProxyConfig()
_FIELD_SHARE = 2  # the field is computed at this fraction of the side: it is smooth


def move_head(pictures: Tensor, held: HeadPose, wanted: HeadPose) -> Tensor:
    """The pictures with the head in another pose, sampled bilinearly, edges repeated.

    Args:
        pictures: (B, 3, S, S) of any range.
        held: B poses in which the head is shown.
        wanted: B poses in which it should be; keypoints as in ``held``.

    Returns:
        (B, 3, S, S) in the dtype of ``pictures``.
    """
    return sample(pictures, moving_field(held, wanted, pictures.shape[-1]))


def moving_field(held: HeadPose, wanted: HeadPose, size_px: int) -> Tensor:
    """Where each pixel of the wanted picture is in the shown one: (B, S, S, 2) x, y from -1 to 1, float32.

    Autocast does not reach inside: its products of half precision would miss by most of a pixel.
    """
    held, wanted = held.to(dtype=torch.float32), wanted.to(dtype=torch.float32)
    with torch.autocast(held.t.device.type, enabled=False):
        coarse = places(max(size_px // _FIELD_SHARE, 1), held.t.device)
        head, share = _head_shift(held, wanted, coarse)
        shift = torch.lerp(_body_shift(held, wanted, coarse), head, share)
        return enlarged(coarse + shift, size_px)


def _head_shift(held: HeadPose, wanted: HeadPose, at: Tensor) -> tuple[Tensor, Tensor]:
    """Way back of what the ellipsoid shows at each place, (B, s, s, 2), and how far to go it, (B, s, s, 1).

    The point of the ellipsoid that is seen at a place is found in head coordinates, k = a + z b with |k / radii| = 1,
    and looked up in the held pose. Beside the ellipsoid its nearest point is taken.
    """
    to_picture, to_held = _rotation(wanted), _rotation(held)
    radii = constant(_PROXY.radii, at.device)
    centre = _beside(held, _PROXY.centre)  # (B, 3) head coordinates
    at_centre = einsum(centre, to_picture, "b i, b i j -> b j")[:, None, None, :2]
    flat = F.pad((at - _shift(wanted)) / _scale(wanted) - at_centre, (0, 1))  # z = 0
    a = einsum(flat, to_picture, "b h w j, b i j -> b h w i") / radii
    b = (to_picture[:, :, 2] / radii)[:, None, None]
    bb, ab, aa = (b * b).sum(-1), (a * b).sum(-1), (a * a).sum(-1)
    beside = (aa - ab.square() / bb).clamp(min=0)  # squared distance of the line of sight: 1 is the outline
    z = -(ab + (bb * (1 - beside)).clamp(min=0).sqrt()) / bb  # the face looks towards -z
    on_head = (a + z[..., None] * b) * radii + centre[:, None, None]
    source = einsum(on_head, to_held, "b h w i, b i j -> b h w j")[..., :2] * _scale(held) + _shift(held)
    low = torch.sigmoid(a[..., 1] * radii[1] / _PROXY.below_softness)  # 0 above the centre, 1 below
    reach = torch.lerp(*_pair(_PROXY.reach, low))
    fade = torch.lerp(*_pair(_PROXY.fade, low))
    share = ((reach + fade - beside.clamp(min=1e-6).sqrt()) / fade).clamp(0, 1)
    return source - at, (share.square() * (3 - 2 * share))[..., None]


def _body_shift(held: HeadPose, wanted: HeadPose, at: Tensor) -> Tensor:
    """Way back of the shoulders, (B, s, s, 2): they go with the neck and change size with the head, partly."""
    neck = _beside(held, _PROXY.neck)
    was, is_ = (
        einsum(neck, _rotation(pose), "b i, b i j -> b j")[:, None, None, :2] * _scale(pose) + _shift(pose)
        for pose in (held, wanted)
    )
    grown = (_scale(held) / _scale(wanted) - 1) * (at - is_)
    below = torch.sigmoid((at[..., 1:] - is_[..., 1:] - _PROXY.shoulder_drop) / _PROXY.shoulder_softness)
    return below * (_PROXY.shoulder_follow * (was - is_) + _PROXY.shoulder_growth * grown)


def _rotation(pose: HeadPose) -> Tensor:
    return rotation_matrix(pose.pitch, pose.yaw, pose.roll)


def _shift(pose: HeadPose) -> Tensor:
    return pose.t[:, None, None, :2]


def _scale(pose: HeadPose) -> Tensor:
    return pose.scale[:, :, None, None]


def _beside(pose: HeadPose, offset: tuple[float, float, float]) -> Tensor:
    return pose.kp.mean(dim=1) + constant(offset, pose.kp.device)


def _pair(values: tuple[float, float], weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = constant(values, weight.device).to(weight).unbind()
    return low.expand_as(weight), high.expand_as(weight), weight
