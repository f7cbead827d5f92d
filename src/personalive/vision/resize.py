"""The one resize policy: how images change size and how uint8 frames become tensors and back.

Portraits go through PIL Lanczos and driving frames through plain bilinear interpolation, because the
released weights were trained that way (weights). Framing of large images is ours: antialiased when
shrinking, cubic when enlarging. CLIP has its own preprocessing, with the CLIP encoder.

Letters: F frames, H height, W width, S side of a square. All images are RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from personalive.device import to_device
from personalive.errors import InputError

ImageArray = NDArray[np.uint8]  # (H, W, 3) RGB
ValueRange = Literal["unit", "signed"]  # [0, 1] or [-1, 1]


@dataclass(frozen=True, slots=True)
class Square:
    """A square of whole pixels: left ``x``, top ``y`` and ``side_px``. It may reach outside its image."""

    x: int
    y: int
    side_px: int


def check_image(image: ImageArray) -> None:
    """Refuse anything but a non-empty (H, W, 3) uint8 array.

    Raises:
        InputError: the array has another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InputError(
            f"an image of shape {tuple(image.shape)} and dtype {image.dtype} cannot be used: "
            "give an RGB image of shape (height, width, 3) and dtype uint8"
        )


# --- resizing ---------------------------------------------------------------------------------------------


def resize_portrait(image: ImageArray, size_px: int) -> ImageArray:
    """Portrait (H, W, 3) uint8 to (size_px, size_px, 3) uint8 by PIL Lanczos (weights)."""
    check_image(image)
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((size_px, size_px), Image.Resampling.LANCZOS)
    return np.array(resized)


def resize_frames(frames: Tensor, size_px: int) -> Tensor:
    """Driving frames (F, 3, H, W) to (F, 3, size_px, size_px), any range and float dtype (weights).

    Bilinear, ``align_corners=False``, no antialias; frames that have the size already are returned as is.
    """
    if frames.shape[-2:] == (size_px, size_px):
        return frames
    return interpolate(frames, size=(size_px, size_px), mode="bilinear", align_corners=False)


def shrink_to(image: ImageArray, longest_px: int) -> ImageArray:
    """Shrink (H, W, 3) so that its longer side is ``longest_px``, antialiased; never enlarges."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # pyright: ignore[reportReturnType]


def crop_square(image: ImageArray, square: Square) -> ImageArray:
    """Cut ``square`` out of (H, W, 3) as (S, S, 3); what lies outside the image repeats its edge."""
    height, width = image.shape[:2]
    x, y, side = square.x, square.y, square.side_px
    if x >= 0 and y >= 0 and x + side <= width and y + side <= height:
        return np.ascontiguousarray(image[y : y + side, x : x + side])
    rows = np.arange(y, y + side).clip(0, height - 1)
    columns = np.arange(x, x + side).clip(0, width - 1)
    return image[rows[:, None], columns[None, :]]


def crop_and_resize(image: ImageArray, square: Square, size_px: int) -> ImageArray:
    """Cut ``square`` out of (H, W, 3) and bring it to (size_px, size_px, 3), uint8.

    Area averaging when shrinking, cubic when enlarging; at the same size the pixels are untouched.
    """
    crop = crop_square(image, square)
    if square.side_px == size_px:
        return crop.copy() if np.shares_memory(crop, image) else crop
    method = cv2.INTER_AREA if square.side_px > size_px else cv2.INTER_CUBIC
    return cv2.resize(crop, (size_px, size_px), interpolation=method)  # pyright: ignore[reportReturnType]


# --- uint8 frames and tensors -----------------------------------------------------------------------------


def frames_to_tensor(
    frames: ImageArray,
    value_range: ValueRange,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Frames (F, H, W, 3) uint8, or one image (H, W, 3), to a tensor (F, 3, H, W) in the given range.

    The bytes travel to the device before they become floats: a quarter of the traffic.

    Raises:
        InputError: another shape or dtype.
    """
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        raise InputError(
            f"frames of shape {tuple(frames.shape)} and dtype {frames.dtype} cannot be used: "
            "give RGB frames of shape (frames, height, width, 3) and dtype uint8"
        )
    batch = frames if frames.ndim == 4 else frames[None]
    owned = batch if batch.flags.c_contiguous and batch.flags.writeable else batch.copy()
    pixels = to_device(torch.from_numpy(owned), torch.device(device)).permute(0, 3, 1, 2).to(torch.float32)
    scaled = pixels / 255 if value_range == "unit" else pixels / 127.5 - 1
    return scaled.to(dtype).contiguous()


def tensor_to_frames(images: Tensor, value_range: ValueRange) -> ImageArray:
    """Images (F, 3, H, W), any float dtype and device, to frames (F, H, W, 3) uint8: clamped and rounded."""
    unit = images.detach().to(torch.float32)
    unit = unit if value_range == "unit" else unit / 2 + 0.5
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
