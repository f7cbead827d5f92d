"""Person and background of a portrait, by MediaPipe's selfie segmentation (``models/person_mask.py``)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from personalive.vision.resize import ImageArray

PersonNetwork = Callable[[Tensor], Tensor]  # images (1, 3, 256, 256) in [0, 1] → masks (1, 1, 256, 256) in [0, 1]

_SIDE_PX = 256  # weights
_LEAST = 0.1  # of a mask: what connects


def person_mask(image: ImageArray, landmarks_px: np.ndarray, network: PersonNetwork) -> ImageArray:
    """Soft mask (256, 256) uint8 over the whole portrait, the person at 255; others who stand apart are background.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks_px: (478, 2 or 3) in its pixels.
    """
    height, width = image.shape[:2]
    small = cv2.resize(image, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    with torch.inference_mode():
        mask = network(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255)[0, 0].numpy()
    _, parts = cv2.connectedComponents((mask > _LEAST).astype(np.uint8))
    middle = landmarks_px[:, :2].mean(axis=0) * [_SIDE_PX / width, _SIDE_PX / height]
    x, y = np.clip(middle, 0, _SIDE_PX - 1).astype(int)
    return np.rint(255 * np.where(parts == parts[y, x], mask, 0)).astype(np.uint8)
