"""Recorded tensors and the layout of the small checkpoint (see ``keyseeded.py`` for what they record)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"


def load(name: str) -> dict[str, Tensor]:
    """All arrays of ``tests/golden/NAME.npz``."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@functools.cache
def manifest() -> dict[str, Any]:
    """``{"files": {file: layout}, "configs": {file: json}}`` of the small checkpoint; do not change it."""
    return json.loads((FOLDER / "manifest_small.json").read_text())


def layout(name: str) -> dict[str, Any]:
    """The layout of ``personalive/NAME.pth`` in the small checkpoint."""
    return dict(manifest()["files"][f"personalive/{name}.pth"])


def upsampled(images: Tensor, size_px: int) -> Tensor:
    """Recorded low-resolution noise (F, C, h, w) at the size that the networks were run at.

    Plane by plane, because torch takes another path for several channels on one thread; that one differs in the last
    bit, which turns one in 300,000 pixels into the neighbouring 8-bit level, and the recorded stream notices.
    """
    planes = F.interpolate(
        images.flatten(0, 1)[:, None], size=(size_px, size_px), mode="bilinear", align_corners=False
    )
    return planes.view(*images.shape[:2], size_px, size_px)
