"""Warps: sampling fields, and the field that moves an image's head to another pose by geometry alone (ours).

A field is (B, S, S, 2), for each pixel of the image to be made where to look in one that exists: x (right) and y
(down) from -1 to 1, as torch's ``grid_sample`` reads them with ``align_corners=False``.

The head is taken for an ellipsoid around its implicit keypoints and turned as a rigid body; the shoulders follow
sideways and the background stays. What the ellipsoid does not know (hair, expression, what comes into view) stays
wrong and is the denoiser's to redraw.

Letters: B images, S image side, K keypoints, s side of a coarser grid. Coordinates as in keypoints.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from personalive.config import HeadProxyConfig
from personalive.device import constant
from personalive.vision.keypoints import HeadPose, rotation_matrix

_PROXY = HeadProxyConfig()
_FIELD_SHARE = 2  # the head's field is computed at this fraction of the side: it is smooth


def places(side: int, device: torch.device) -> Tensor:
    """Identity field: pixel centres, (1, side, side, 2) float32."""
    line = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def sample(images: Tensor, field: Tensor) -> Tensor:
    """(B, C, S, S) looked up at a field, bilinearly, edges repeated; in the dtype of ``images``.

    In float32 inside: half precision would miss by whole pixels.
    """
    found = F.grid_sample(images.float(), field, mode="bilinear", padding_mode="border", align_corners=False)
    return found.to(images.dtype)


def shift_of(field: Tensor, side: int) -> Tensor:
    """Displacement of a field from each place, pooled: (B, 2, side, side)."""
    shift = rearrange(field - places(field.shape[1], field.device), "b h w c -> b c h w")
    return F.avg_pool2d(shift, field.shape[1] // side)


def add_flow(field: Tensor, flow: Tensor) -> Tensor:
    """The field sampled where ``flow`` (B, 2, s, s), float32 in half image sides, points: (B, S, S, 2).

    So the flow says where a pixel is in the image that the field already makes.
    """
    side = field.shape[1]
    flow = F.interpolate(flow, size=(side, side), mode="bilinear", align_corners=False)
    at = places(side, field.device) + rearrange(flow, "b c h w -> b h w c")
    return rearrange(sample(rearrange(field, "b h w c -> b c h w"), at), "b c h w -> b h w c")


def enlarged(field: Tensor, side: int) -> Tensor:
    """The same movement at another side: (B, side, side, 2)."""
    shift = rearrange(field - places(field.shape[1], field.device), "b h w c -> b c h w")
    shift = F.interpolate(shift, size=(side, side), mode="bilinear", align_corners=False)
    return places(side, field.device) + rearrange(shift, "b c h w -> b h w c")


# --- the head's movement --------------------------------------------------------------------------------------------


def move_head(images: Tensor, source: HeadPose, target: HeadPose) -> Tensor:
    """Images with the head in another pose, sampled bilinearly, edges repeated.

    Args:
        images: (B, 3, S, S) of any range.
        source: B poses in which the head is shown.
        target: B poses in which it should be; keypoints as in ``source``.

    Returns:
        (B, 3, S, S) in the dtype of ``images``.
    """
    return sample(images, moving_field(source, target, images.shape[-1]))


def moving_field(source: HeadPose, target: HeadPose, size_px: int) -> Tensor:
    """Field that moves the head: where each pixel of the target is in the source, (B, S, S, 2), float32.

    Autocast does not reach inside: its products of half precision would miss by most of a pixel.
    """
    source, target = source.to(dtype=torch.float32), target.to(dtype=torch.float32)
    with torch.autocast(source.t.device.type, enabled=False):
        coarse = places(max(size_px // _FIELD_SHARE, 1), source.t.device)
        head, share = _head_shift(source, target, coarse)
        shift = torch.lerp(_body_shift(source, target, coarse), head, share)
        return enlarged(coarse + shift, size_px)


def _head_shift(source: HeadPose, target: HeadPose, at: Tensor) -> tuple[Tensor, Tensor]:
    """Way back of what the ellipsoid shows at each place, (B, s, s, 2), and how far to go it, (B, s, s, 1).

    The point of the ellipsoid that is seen at a place is found in head coordinates, k = a + z b with |k / radii| = 1,
    and looked up in the source pose. Beside the ellipsoid its nearest point is taken.
    """
    to_target, to_source = _rotation(target), _rotation(source)
    radii = constant(_PROXY.radii, at.device)
    centre = _beside(source, _PROXY.centre)  # (B, 3) head coordinates
    at_centre = einsum(centre, to_target, "b i, b i j -> b j")[:, None, None, :2]
    flat = F.pad((at - _shift(target)) / _scale(target) - at_centre, (0, 1))  # z = 0
    a = einsum(flat, to_target, "b h w j, b i j -> b h w i") / radii
    b = (to_target[:, :, 2] / radii)[:, None, None]
    bb, ab, aa = (b * b).sum(-1), (a * b).sum(-1), (a * a).sum(-1)
    beside = (aa - ab.square() / bb).clamp(min=0)  # squared distance of the line of sight: 1 is the outline
    z = -(ab + (bb * (1 - beside)).clamp(min=0).sqrt()) / bb  # the face looks towards -z
    on_head = (a + z[..., None] * b) * radii + centre[:, None, None]
    seen = einsum(on_head, to_source, "b h w i, b i j -> b h w j")[..., :2] * _scale(source) + _shift(source)
    low = torch.sigmoid(a[..., 1] * radii[1] / _PROXY.below_softness)  # 0 above the centre, 1 below
    reach = torch.lerp(*_pair(_PROXY.reach, low))
    fade = torch.lerp(*_pair(_PROXY.fade, low))
    share = ((reach + fade - beside.clamp(min=1e-6).sqrt()) / fade).clamp(0, 1)
    return seen - at, (share.square() * (3 - 2 * share))[..., None]


def _body_shift(source: HeadPose, target: HeadPose, at: Tensor) -> Tensor:
    """Way back of the shoulders, (B, s, s, 2): they go with the neck and change size with the head, partly."""
    neck = _beside(source, _PROXY.neck)
    was, is_ = (
        einsum(neck, _rotation(pose), "b i, b i j -> b j")[:, None, None, :2] * _scale(pose) + _shift(pose)
        for pose in (source, target)
    )
    grown = (_scale(source) / _scale(target) - 1) * (at - is_)
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
