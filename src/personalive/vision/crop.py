"""Crop and resize by boxes, without the host ever seeing them.

Axis letters: F frames, C channels, H W picture height and width, S output side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def crop_faces(frames: Tensor, boxes: Tensor, size_px: int) -> Tensor:
    """Each frame's box, resized bilinearly (``align_corners=False``, no antialias; weights).

    A box never has to be good: it is first moved into the picture, and one that is empty (the face is
    outside the picture) becomes one pixel wide or high, so the result is a stretched edge of the frame
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
