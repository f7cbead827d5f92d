"""Keypoint canvas for the pose guider; face box and crop for the motion encoder (weights).

The host never sees a pixel of them. Axis letters: F frames, C channels, H W image height and width, K keypoints (21),
P drawn keypoints (7), S side in pixels. Keypoints are those of ``transform_keypoints``: x and y from -1 to 1 across
the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from personalive.config import CanvasConfig
from personalive.device import constant

_CANVAS = CanvasConfig()
_REACH = range(-_CANVAS.radius_px, _CANVAS.radius_px + 1)
_DISC = tuple((x, y) for x in _REACH for y in _REACH if x * x + y * y <= _CANVAS.radius_px**2)


def draw_canvas(keypoints: Tensor, size_px: int) -> Tensor:
    """Seven coloured discs per frame on black; overlaps add and clamp, what lies outside is cut off.

    Args:
        keypoints: (F, K, 3).
        size_px: S, side of the canvas.

    Returns:
        (F, 3, S, S) float32 in [0, 1].
    """
    index, inside = _disc_pixels(_pixels(keypoints, size_px), size_px)
    colours = constant(_CANVAS.colours, keypoints.device) / 255
    ink = colours.T[None, :, :, None] * inside[:, None]  # (F, 3, P, offsets)
    canvas = torch.zeros(len(keypoints), 3, size_px * size_px, device=keypoints.device)
    canvas.scatter_add_(2, index.flatten(1)[:, None].expand(-1, 3, -1), ink.flatten(2))
    return canvas.clamp_(max=1).view(-1, 3, size_px, size_px)


def face_box(keypoints: Tensor, size_px: int) -> Tensor:
    """The square around the face, cut to the image.

    Centre = mean of the seven truncated points; the side is measured from the centre up to the topmost one.

    Args:
        keypoints: (F, K, 3), the frame's own (not retargeted).
        size_px: S, side of the image.

    Returns:
        (F, 4) int64 boxes (x1, y1, x2, y2), each in 0..S-1; x2 and y2 are exclusive. A face outside the
        image gives an empty box, which ``crop_faces`` accepts.
    """
    points = _pixels(keypoints, size_px).float()
    centre = points.mean(dim=1)
    half = _CANVAS.box_scale * (centre[:, 1] - points[:, :, 1].amin(dim=1))[:, None]
    box = torch.cat([centre - _CANVAS.box_before * half, centre + _CANVAS.box_after * half], dim=1)
    return box.clamp(0, size_px - 1).to(torch.int64)


def _pixels(keypoints: Tensor, size_px: int) -> Tensor:
    """Pixel positions of the drawn keypoints, truncated towards zero: (F, P, 2) int64."""
    chosen = keypoints[:, constant(_CANVAS.points, keypoints.device), :2].float()
    return ((chosen * 0.5 + 0.5) * size_px).to(torch.int64)


def _disc_pixels(centres: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """Flat pixel numbers under each disc and whether they lie on the canvas: two (F, P, offsets)."""
    pixels = centres[:, :, None] + constant(_DISC, centres.device)
    inside = ((pixels >= 0) & (pixels < size_px)).all(dim=-1)
    index = pixels[..., 1] * size_px + pixels[..., 0]
    return torch.where(inside, index, 0), inside


def crop_faces(frames: Tensor, boxes: Tensor, size_px: int) -> Tensor:
    """Each frame's box, resized bilinearly (``align_corners=False``, no antialias; weights).

    A box never has to be good: it is first moved into the image, and one that is empty (the face is
    outside the image) becomes one pixel wide or high, so the result is a stretched edge of the frame
    instead of an error.

    Args:
        frames: (F, C, H, W) floating point, any range.
        boxes: (F, 4) integers (x1, y1, x2, y2), x2 and y2 exclusive.
        size_px: S.

    Returns:
        (F, C, S, S), same dtype and range as ``frames``.
    """
    height, width = frames.shape[-2:]
    across = _sampled(frames.float(), boxes[:, 0], boxes[:, 2], width, size_px)
    down = _sampled(across.transpose(2, 3), boxes[:, 1], boxes[:, 3], height, size_px)
    return down.transpose(2, 3).to(frames.dtype).contiguous()


def _sampled(lines: Tensor, start: Tensor, stop: Tensor, length: int, count: int) -> Tensor:
    """``count`` even samples between two places of each frame's lines, which are its last axis.

    Args:
        lines: (F, C, L, ``length``) float32.
        start, stop: (F,) integers, the latter exclusive.

    Returns:
        (F, C, L, ``count``) float32.
    """
    start = start.clamp(min=0, max=length - 1)
    stop = torch.maximum(stop.clamp(max=length), start + 1)
    extent = (stop - start)[:, None]  # (F, 1) pixels, at least one
    place = (torch.arange(count, device=lines.device) + 0.5) * (extent / count) - 0.5  # (F, S) pixel centres
    place = place.clamp(min=0)
    low = torch.minimum(place.long(), extent - 1)
    high = torch.minimum(low + 1, extent - 1)
    share = (place - low)[:, None, None]

    def at(index: Tensor) -> Tensor:
        index = (start[:, None] + index)[:, None, None]
        return lines.gather(3, index.expand(-1, *lines.shape[1:3], -1))

    return at(low) * (1 - share) + at(high) * share
