"""Decoded video frames to upright RGB with square pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.paths import convert_hint

_SPC_RGB = 0  # H.273 matrix coefficients
_CONVERTED = (1, 4, 5, 6, 7, 9)  # those that swscale knows
_REFUSED = {
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived, constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_MAX_PIXEL_ASPECT = 4  # DVDs and tapes stay below 2


def _unnamed(kind: type[SideDataType], value: Any) -> SideDataType:
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


# PyAV refuses to list the side data of a frame that has any of a kind it has no name for, such as EXIF.
SideDataType._missing_ = classmethod(_unnamed)  # pyright: ignore[reportAttributeAccessIssue]


class FrameConverter:
    """Converts the frames of one clip; the first one decides about size and rotation."""

    def __init__(self, path: Path, aspect: Fraction | None, config: MediaConfig) -> None:
        """
        Args:
            path: for messages.
            aspect: width / height of a stored pixel, if stated.
        """
        self._path, self._aspect, self._config = path, aspect, config
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None  # (width, height) of every frame, before rotation
        self._turn: np.ndarray | None = None  # display matrix

    def upright_rgb(self, frame: VideoFrame) -> np.ndarray:
        """uint8 ``(H, W, 3)``: square pixels, the size of the first frame, turned as the file asks.

        Raises:
            InputError: its colours are of a kind that cannot be converted.
        """
        if self._size is None:
            self._set_geometry(frame)
        width, height = self._size or (frame.width, frame.height)
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=self._matrix(frame),
            dst_color_range=ColorRange.JPEG,
            threads=1,  # starting threads costs more than a frame of this size
        ).to_ndarray()
        return rgb if self._turn is None else turn(rgb, self._turn)

    def _set_geometry(self, first: VideoFrame) -> None:
        """Fix size and rotation for the whole clip.

        Asking a frame for its side data ties it into a reference cycle, which would keep it in memory until a
        garbage collection: this asks the first frame only.
        """
        self._size = (_square_width(first.width, self._aspect), first.height)
        matrix = first.side_data.get("DISPLAYMATRIX")
        self._turn = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)

    def _matrix(self, frame: VideoFrame) -> int | None:
        matrix = int(frame.colorspace)
        if matrix == _SPC_RGB:
            return None
        if matrix in _CONVERTED:
            return matrix
        if matrix in _REFUSED:
            raise InputError(
                f"{self._path}: its colours are {_REFUSED[matrix]} (matrix {matrix}), which cannot be converted "
                f"here; {convert_hint(self._path, '-vf zscale=matrix=709')}"
            )
        hd = min(frame.width, frame.height) > self._config.unspecified_hd_height_px  # unspecified or reserved
        return Colorspace.ITU709 if hd else Colorspace.ITU601


def _square_width(width: int, aspect: Fraction | None) -> int:
    """The width that makes pixels of the given shape (width / height) square; absurd shapes are ignored."""
    if not aspect or not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
        return width
    return max(round(width * aspect), 1)


def turn(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``image`` ``(H, W, 3)`` turned and mirrored by a display matrix to the nearest quarter turn.

    ``matrix``: nine int32 in FFmpeg's order (a, b, u, c, d, v, x, y, w); a point (x, y) of the stored frame
    is shown at (a x + c y, b x + d y).
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flip_x, flip_y = a < 0, d < 0
    else:
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    image = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(image)
