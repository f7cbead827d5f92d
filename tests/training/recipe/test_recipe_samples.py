"""Samples of the recipe: masks, and images of the wrong size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from personalive.errors import InputError
from personalive.training.recipe.material import check_sample, mask_tensor


def test_masks_become_shares():
    bits = np.eye(4, dtype=bool)[None]
    assert torch.equal(mask_tensor(bits, torch.device("cpu")), torch.eye(4)[None])


@pytest.mark.parametrize("shape", [(64, 64, 3), (40, 32, 32, 3)])
def test_pictures_of_another_size_name_both(shape: tuple[int, ...]):
    check_sample(np.zeros(shape, np.uint8), shape[-2])
    with pytest.raises(InputError, match="48 x 48"):
        check_sample(np.zeros(shape, np.uint8), 48)
