"""Person and background of a portrait."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from personalive.vision.face_person import person_mask

LANDMARKS = np.array([[280.0, 300.0, 0.0], [320.0, 360.0, 0.0]])  # about (300, 330) of 400 x 600


def two_people(images: Tensor) -> Tensor:
    """Soft masks of a person at the right and of one who stands apart at the left."""
    assert images.shape == (1, 3, 256, 256)
    assert (images.min(), images.max()) == (0.0, 1.0)
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 80:, 150:] = 0.75
    mask[..., 80:, 150] = 0.25
    mask[..., 80:, :60] = 1.0
    return mask


def test_the_mask_is_soft_and_of_the_person_with_this_face():
    image = np.zeros((600, 400, 3), np.uint8)
    image[:, 200:] = 255
    found = person_mask(image, LANDMARKS, two_people)
    assert (found.shape, found.dtype) == ((256, 256), np.uint8)
    assert not found[:, :150].any()
    assert set(np.unique(found[80:, 150:])) == {64, 191}
