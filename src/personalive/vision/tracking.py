"""Following one face through a shot, and noticing where a shot ends (ours). Constant memory, one pass."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceBox, FaceDetector
from personalive.vision.resize import ImageArray

_HISTOGRAM_SIDE_PX = 96  # pictures are thinned to about this side before their colours are counted


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a frame shows: the followed face, whether it was found just here, whether a shot begins."""

    face: FaceBox | None
    fresh: bool
    cut: bool


class CutDetector:
    """Compares each picture's colours with those of the picture before."""

    def __init__(self, config: FramingConfig) -> None:
        self._config = config
        self._last: np.ndarray | None = None
        self._last_shape: tuple[int, ...] = ()

    def push(self, image: ImageArray) -> tuple[bool, bool]:
        """(suspected, certain): the colours changed abruptly; the picture changed its size."""
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
