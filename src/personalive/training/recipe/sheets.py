"""Sample sheets: rows of images to compare by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from personalive.vision.resize import tensor_to_frames

CELL_PX = 192
GAP_PX = 4
BACKGROUND_GREY = 255


def page(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of (S, S, 3) uint8 images -> one (H, W, 3) uint8 page, each cell 192 px."""
    step = CELL_PX + GAP_PX
    width = max(len(row) for row in rows)
    sheet = np.full((len(rows) * step + GAP_PX, width * step + GAP_PX, 3), BACKGROUND_GREY, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = GAP_PX + y * step, GAP_PX + x * step
            method = cv2.INTER_AREA if picture.shape[0] > CELL_PX else cv2.INTER_CUBIC
            cell = cv2.resize(picture, (CELL_PX, CELL_PX), interpolation=method)
            sheet[top : top + CELL_PX, left : left + CELL_PX] = cell
    return sheet


def pictures(images: Tensor) -> list[np.ndarray]:
    """(N, 3, S, S) in [-1, 1] -> N uint8 images."""
    return list(tensor_to_frames(images, "signed"))


def write_sheet(sheet: np.ndarray, path: Path) -> None:
    """Write a PNG that appears only when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(sheet).save(partial, format="PNG")
    partial.replace(path)
