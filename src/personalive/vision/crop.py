"""Crop and resize by boxes.

Axis letters: F frames, C channels, H W picture height and width, S output side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
    crops = []
    for frame, box in zip(frames, _repaired(boxes, *frames.shape[-2:]).tolist(), strict=True):
        x1, y1, x2, y2 = box
        crop = frame[None, :, y1:y2, x1:x2]
        crops.append(F.interpolate(crop, size=(size_px, size_px), mode="bilinear", align_corners=False))
    return torch.cat(crops)


def _repaired(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes of at least one pixel inside the picture; those that already are stay as they are."""
    limit = boxes.new_tensor([width, height])
    start = torch.minimum(boxes[:, :2].clamp(min=0), limit - 1)
    stop = torch.maximum(torch.minimum(boxes[:, 2:], limit), start + 1)
    return torch.cat([start, stop], dim=1)
