"""Choosing a square around faces: pure geometry (ours). All figures are in picture pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from personalive.errors import InputError
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceBox
from personalive.vision.resize import Square

Extent = tuple[float, float, float, float]  # left, top, right, bottom
Shape = tuple[int, ...]  # (H, W, ...) of a picture


def centre_square(shape: Shape) -> Square:
    """The largest square in the middle of a picture."""
    height, width = shape[:2]
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def whole_square(shape: Shape, config: FramingConfig) -> Square:
    """The whole of a picture that is square, give or take ``square_tolerance``.

    Raises:
        InputError: it is not square.
    """
    height, width = shape[:2]
    if abs(height - width) > config.square_tolerance * max(height, width):
        raise InputError(
            f"a picture of {width}x{height} px is not square, which --framing none needs: "
            "use --framing auto (around the face) or --framing center"
        )
    return centre_square(shape)


def face_square(faces: Sequence[FaceBox], shape: Shape, scale: float, config: FramingConfig) -> Square:
    """One square for a face seen at one or several moments.

    Its side is ``scale`` times the median face's larger side, or more where the face moves about. It holds
    all of the visible face, leaves the picture only where it cannot do so otherwise, and sits a little
    higher than the face, for the hair.

    Args:
        faces: at least one box of the same face.
        shape: (H, W, ...) of the picture.
        scale: side of the square in larger sides of the face.
        config: the remaining shares.
    """
    height, width = shape[:2]
    middle = FaceBox(*np.median([(f.x, f.y, f.width, f.height, f.score) for f in faces], axis=0).tolist())
    visible = _hull([middle], shape)
    cover = _hull(faces, shape)
    wanted = max(scale * middle.side_px, config.motion_margin * _reach(cover))
    side = max(round(min(wanted, height, width)), _reach(visible))
    if _reach(cover) > side:  # it moves over more than a square in this picture can hold
        cover = visible
    x, y = middle.centre
    return Square(
        _place(x, side, cover[0], cover[2], width),
        _place(y - config.up_shift * middle.side_px, side, cover[1], cover[3], height),
        side,
    )


def inside_share(face: FaceBox, square: Square, shape: Shape) -> float:
    """Share of the face's visible area that lies in the square, in [0, 1]; 0 when none of it is visible."""
    left, top, right, bottom = _visible(face, shape)
    area = (right - left) * (bottom - top)
    across = min(right, square.x + square.side_px) - max(left, square.x)
    down = min(bottom, square.y + square.side_px) - max(top, square.y)
    return min(max(across, 0.0) * max(down, 0.0) / area, 1.0) if area > 0 else 0.0


def _visible(face: FaceBox, shape: Shape) -> Extent:
    """The face's box within the picture; a point on the border when it is outside."""
    height, width = shape[:2]
    left, right = np.clip((face.x, face.x + face.width), 0, width).tolist()
    top, bottom = np.clip((face.y, face.y + face.height), 0, height).tolist()
    return left, top, right, bottom


def _hull(faces: Sequence[FaceBox], shape: Shape) -> tuple[int, int, int, int]:
    """The whole pixels that the visible faces lie in: left, top, right, bottom."""
    extents = [_visible(face, shape) for face in faces]
    left, top = np.floor(np.min(extents, axis=0)[:2]).astype(int).tolist()
    right, bottom = np.ceil(np.max(extents, axis=0)[2:]).astype(int).tolist()
    return left, top, right, bottom


def _reach(hull: tuple[int, int, int, int]) -> int:
    return max(hull[2] - hull[0], hull[3] - hull[1], 1)


def _place(middle: float, side: int, low: int, high: int, extent: int) -> int:
    """Where a side starts: near ``middle``, holding [low, high], inside [0, extent] if it fits there."""
    start = min(max(round(middle - side / 2), high - side), low)
    return min(max(start, min(0, extent - side)), max(0, extent - side))
