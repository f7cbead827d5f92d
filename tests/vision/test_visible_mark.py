"""The visible label: readable, small, in one place, at any size."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.vision.visible_mark import draw_visible_mark


@pytest.mark.parametrize("grey", [0, 255])
@pytest.mark.parametrize("size", [(512, 512), (1080, 1920)])
def test_the_label_is_small_and_contrasts_with_any_image(size: tuple[int, int], grey: int):
    image = np.full((*size, 3), grey, np.uint8)
    marked = draw_visible_mark(image)
    assert (image == grey).all()  # the image itself stays
    changed = (marked != image).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows.min() > 0.9 * size[0]
    assert columns.max() < 0.4 * size[1]
    field = marked[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int)
    assert field.max() == 255
    assert field.max() - np.median(field) > 100  # white letters on dark


def test_a_tiny_image_takes_what_fits():
    image = np.full((12, 20, 3), 90, np.uint8)
    assert draw_visible_mark(image).shape == image.shape
