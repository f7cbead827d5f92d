"""What the training recipe asks of the samples of a training set."""

from __future__ import annotations

import numpy as np

from personalive.errors import InputError

SYNTHETIC = "synthetic"  # the name of the drawn set where a prepared folder is asked for


def check_sample(picture: np.ndarray, size_px: int) -> None:
    """Refuse pictures that are not of the model's size.

    Raises:
        InputError: naming both sizes.
    """
    if picture.shape[-3:] != (size_px, size_px, 3) or picture.dtype != np.uint8:
        raise InputError(
            f"the data has pictures of shape {picture.shape[-3:]} ({picture.dtype}) but the model needs "
            f"{size_px} x {size_px} RGB: prepare the data at that size"
        )
