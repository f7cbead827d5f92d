"""A small readable label on images that a model made."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TEXT = "AI-generated"
_HEIGHT, _LEAST_PX = 0.032, 9  # of the letters, in shorter sides of the image
_BACKGROUND = 0.55  # share of the image that the dark field behind the letters hides


def draw_visible_mark(image: np.ndarray) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with ``TEXT`` in its lower left corner, as far as it has room there."""
    letters, margin = _label(max(round(_HEIGHT * min(image.shape[:2])), _LEAST_PX))
    height, width = (min(a, b - margin) for a, b in zip(letters.shape, image.shape[:2], strict=True))
    marked = image.copy()
    if height <= 0 or width <= 0:
        return marked
    bottom = image.shape[0] - margin
    field = marked[bottom - height : bottom, margin : margin + width]
    white = letters[:height, :width, None]
    field[:] = np.rint(255 * white + (1 - white) * (1 - _BACKGROUND) * field)
    return marked


@lru_cache(maxsize=8)
def _label(size_px: int) -> tuple[np.ndarray, int]:
    """Opacity (h, w) float32, 0..1, of white letters with a border; and the margin to the image's sides."""
    font = ImageFont.load_default(size_px)
    pad = max(size_px // 3, 2)
    left, top, right, bottom = (int(side) for side in font.getbbox(TEXT))
    label = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad))
    ImageDraw.Draw(label).text((pad - left, pad - top), TEXT, fill=255, font=font)
    return np.asarray(label, np.float32) / 255, pad
