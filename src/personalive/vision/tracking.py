"""The square around a face, the face followed through a shot, and the end of a shot (ours).

Constant memory, one pass. All lengths are in image pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from personalive.errors import InputError
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceBox, FaceDetector
from personalive.vision.resize import ImageArray, Square

Extent = tuple[float, float, float, float]  # left, top, right, bottom
Shape = tuple[int, ...]  # (H, W, ...) of an image


def centre_square(shape: Shape) -> Square:
    """The largest square in the middle of an image."""
    height, width = shape[:2]
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def whole_square(shape: Shape, config: FramingConfig) -> Square:
    """The whole of an image that is square, give or take ``square_tolerance``.

    Raises:
        InputError: it is not square.
    """
    height, width = shape[:2]
    if abs(height - width) > config.square_tolerance * max(height, width):
        raise InputError(
            f"an image of {width}x{height} px is not square, which --framing none needs: "
            "use --framing auto (around the face) or --framing center"
        )
    return centre_square(shape)


def face_square(faces: Sequence[FaceBox], shape: Shape, scale: float, config: FramingConfig) -> Square:
    """One square for a face seen at one or several moments.

    Its side is ``scale`` times the median face's larger side, or more where the face moves about. It holds
    all of the visible face, leaves the image only where it cannot do so otherwise, and sits a little
    higher than the face, for the hair.

    Args:
        faces: at least one box of the same face.
        shape: (H, W, ...) of the image.
        scale: side of the square in larger sides of the face.
        config: the remaining shares.
    """
    height, width = shape[:2]
    middle = FaceBox(*np.median([(f.x, f.y, f.width, f.height, f.score) for f in faces], axis=0).tolist())
    visible = _hull([middle], shape)
    cover = _hull(faces, shape)
    wanted = max(scale * middle.side_px, config.motion_margin * _reach(cover))
    side = max(round(min(wanted, height, width)), _reach(visible))
    if _reach(cover) > side:  # it moves over more than a square in this image can hold
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
    """The face's box within the image; a point on the border when it is outside."""
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
    """Start of a side: near ``middle``, holding [low, high], inside [0, extent] if it fits there."""
    start = min(max(round(middle - side / 2), high - side), low)
    return min(max(start, min(0, extent - side)), max(0, extent - side))


# --- following ------------------------------------------------------------------------------------------------------


_HISTOGRAM_SIDE_PX = 96  # images are thinned to about this side before their colours are counted


@dataclass(frozen=True, slots=True)
class Sighting:
    """Findings in a frame."""

    face: FaceBox | None  # the followed one
    fresh: bool  # detected in this very frame
    cut: bool  # a shot begins here


class CutDetector:
    """Compares each image's colours with those of the image before."""

    def __init__(self, config: FramingConfig) -> None:
        self._config = config
        self._last: np.ndarray | None = None
        self._last_shape: tuple[int, ...] = ()

    def push(self, image: ImageArray) -> tuple[bool, bool]:
        """(suspected, certain): the colours changed abruptly; the image changed its size."""
        counts = self._histogram(image)
        suspected = certain = False
        if self._last is not None:
            suspected = float(np.abs(counts - self._last).sum()) / 2 > self._config.scene_cut_level
            certain = image.shape != self._last_shape
        self._last, self._last_shape = counts, image.shape
        return suspected, certain

    def _histogram(self, image: ImageArray) -> np.ndarray:
        step = max(1, max(image.shape[:2]) // _HISTOGRAM_SIDE_PX)
        thin = np.ascontiguousarray(image[::step, ::step])
        bins = [self._config.histogram_bins] * 3
        return cv2.calcHist([thin], [0, 1, 2], None, bins, [0, 256] * 3) / (thin.shape[0] * thin.shape[1])


class FaceFollower:
    """Follows the largest face by continuity; searches every few frames, and every frame once it is lost."""

    def __init__(self, detector: FaceDetector, config: FramingConfig) -> None:
        self._detector = detector
        self._config = config
        self._cuts = CutDetector(config)
        self._last: FaceBox | None = None
        self._misses = 0  # searches in a row that did not find the followed face
        self._since_search = 0

    def look(self, image: ImageArray, *, search: bool = False) -> Sighting:
        """Take the next frame (H, W, 3) uint8. ``search`` asks for a search whether one is due or not."""
        suspected, certain = self._cuts.push(image)
        self._since_search += 1
        due = self._misses > 0 or self._last is None or self._since_search >= self._config.detect_every_frames
        if not (search or suspected or certain or due):
            return Sighting(self._last, fresh=False, cut=False)
        self._since_search = 0
        faces = self._detector.detect(image)
        cut = certain or (suspected and not self._continues(faces))
        if cut:
            self._last, self._misses = None, 0
        return self._follow(faces, cut)

    def _continues(self, faces: list[FaceBox]) -> bool:
        """A flash or an exposure step leaves the face where it was; a real cut seldom does."""
        last = self._last
        return last is not None and any(last.overlap(f) >= self._config.same_face_overlap for f in faces)

    def _follow(self, faces: list[FaceBox], cut: bool) -> Sighting:
        if self._misses > self._config.leave_frames:
            self._last = None  # whoever is there now is the one to follow
        face = self._same(faces) if self._last is not None else (faces[0] if faces else None)
        if face is not None:
            self._last, self._misses = face, 0
            return Sighting(face, fresh=True, cut=cut)
        self._misses += 1
        bridged = self._last is not None and self._misses <= self._config.bridge_frames
        return Sighting(self._last if bridged else None, fresh=False, cut=cut)

    def _same(self, faces: list[FaceBox]) -> FaceBox | None:
        """The face that overlaps the last one most, or the nearest within one face's side."""
        last = self._last
        assert last is not None
        best = max(faces, key=last.overlap, default=None)
        if best is not None and last.overlap(best) > 0:
            return best
        near = min(faces, key=lambda face: _distance(face, last), default=None)
        return near if near is not None and _distance(near, last) < last.side_px else None


def _distance(one: FaceBox, other: FaceBox) -> float:
    return float(np.hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]))
