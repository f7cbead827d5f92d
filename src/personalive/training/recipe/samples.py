"""Checks of the samples of a training set."""

from __future__ import annotations

import numpy as np

from personalive.errors import InputError

SYNTHETIC = "synthetic"  # the name of the synthetic set where a prepared folder is asked for


def check_sample(image: np.ndarray, size_px: int) -> None:
    """Refuse images that are not of the model's size.

    Raises:
        InputError: naming both sizes.
    """
    if image.shape[-3:] != (size_px, size_px, 3) or image.dtype != np.uint8:
        raise InputError(
            f"the data has images of shape {image.shape[-3:]} ({image.dtype}) but the model needs "
            f"{size_px} x {size_px} RGB: prepare the data at that size"
        )
