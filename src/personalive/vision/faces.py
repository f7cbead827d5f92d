"""Face detection: YuNet when its file is there, OpenCV's bundled Haar cascades otherwise (ours).

Both report boxes in YuNet's convention (brow to chin, cheek to cheek), so that framing does not depend on
the detector. A detector keeps native state: use one from one thread at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import cv2.data
import numpy as np

from personalive.config import FACE_DETECTOR
from personalive.errors import CheckpointError
from personalive.vision.config import FramingConfig, HaarConfig
from personalive.vision.resize import ImageArray, check_image, shrink_to

_SMALLEST_SIDE_PX = 16  # below this no face can be told, and the detectors' pyramids fail

Point = tuple[float, float]  # (x, y) in image pixels


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face in image pixels: left ``x``, top ``y``, ``width``, ``height``; ``score`` in [0, 1].

    ``landmarks``: both eyes, the tip of the nose and both corners of the mouth, in each pair the one that is
    further left in a frontal image first; None from a detector that does not find them.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    landmarks: tuple[Point, Point, Point, Point, Point] | None = None

    @property
    def side_px(self) -> float:
        """The larger side."""
        return max(self.width, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return self.x + self.width / 2, self.y + self.height / 2

    def scaled(self, share: float) -> FaceBox:
        """Box in an image ``share`` as large, without its landmarks."""
        x, y, width, height = (share * value for value in (self.x, self.y, self.width, self.height))
        return FaceBox(x, y, width, height, self.score)

    def overlap(self, other: FaceBox) -> float:
        """Intersection over union with another box, in [0, 1]."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        shared = max(across, 0.0) * max(down, 0.0)
        union = self.width * self.height + other.width * other.height - shared
        return min(shared / union, 1.0) if union > 0 else 0.0


class FaceDetector(Protocol):
    """Interface of a face detector."""

    @property
    def name(self) -> str:
        """Name for reports."""
        ...

    def detect(self, image: ImageArray) -> list[FaceBox]:
        """Faces in an (H, W, 3) uint8 RGB image, in its pixels, largest first."""
        ...


class YuNetDetector:
    """OpenCV's YuNet, a small convolutional detector (MIT; a 0.2 MB file that comes with the weights)."""

    name = "yunet"

    def __init__(self, path: Path, config: FramingConfig | None = None) -> None:
        """Load ``face_detection_yunet_2023mar.onnx``.

        Raises:
            CheckpointError: the file is missing, damaged or another network.
        """
        self._config = config or FramingConfig()
        try:
            content = np.frombuffer(path.read_bytes(), np.uint8)
            self._net = cv2.FaceDetectorYN.create(
                "onnx", content, np.empty(0, np.uint8), (64, 64), self._config.min_score
            )
            self._net.detect(np.zeros((64, 64, 3), np.uint8))  # another network fails only when it runs
        except (OSError, cv2.error) as error:
            raise CheckpointError(
                f"{path} is not a readable YuNet face detector: download the weights again, or delete the "
                "file to use the bundled Haar detector"
            ) from error

    def detect(self, image: ImageArray) -> list[FaceBox]:
        """See ``FaceDetector.detect``."""
        small, scale = _shrunk(image, self._config.detect_side_px)
        if small is None:
            return []
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        found = [] if rows is None else [(*map(float, row[:4]), float(row[14])) for row in rows]
        points = [] if rows is None else [row[4:14].reshape(5, 2) for row in rows]
        return _boxes(found, scale, image.shape, self._config, points)


class HaarDetector:
    """OpenCV's bundled cascades, the fallback that needs no download. Near-frontal faces only.

    Two frontal cascades are asked in turn: the first is precise, the second, asked strictly, finds some of
    what it misses. A cascade has no confidence, so every score is 1.
    """

    name = "haar"

    def __init__(self, config: FramingConfig | None = None, haar: HaarConfig | None = None) -> None:
        """Load the cascades.

        Raises:
            CheckpointError: the installed OpenCV came without them.
        """
        self._config = config or FramingConfig()
        self._haar = haar or HaarConfig()
        self._cascades = [(_cascade(name), votes) for name, votes in self._haar.cascades]

    def detect(self, image: ImageArray) -> list[FaceBox]:
        """See ``FaceDetector.detect``."""
        small, scale = _shrunk(image, self._haar.detect_side_px)
        if small is None:
            return []
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        smallest = round(self._haar.min_face_share * max(gray.shape))
        for cascade, votes in self._cascades:
            squares = cascade.detectMultiScale(gray, 1.1, votes, minSize=(smallest, smallest))
            if len(squares):
                found = [self._as_face(*map(float, square)) for square in squares]
                return _boxes(found, scale, image.shape, self._config)
        return []

    def _as_face(self, x: float, y: float, side: float, _: float) -> tuple[float, float, float, float, float]:
        width, height = side * self._haar.face_width, side * self._haar.face_height
        return x + (side - width) / 2, y + (side - height) / 2, width, height, 1.0


def find_detector(weights_folder: Path | None, config: FramingConfig | None = None) -> FaceDetector:
    """YuNet from ``weights_folder`` (where the download puts it, or its root) when the file is there, else Haar.

    Raises:
        CheckpointError: the YuNet file is there but damaged.
    """
    if weights_folder is not None:
        for path in (weights_folder / FACE_DETECTOR, weights_folder / Path(FACE_DETECTOR).name):
            if path.is_file():
                return YuNetDetector(path, config)
    return HaarDetector(config)


def _cascade(name: str) -> cv2.CascadeClassifier:
    path = Path(cv2.data.haarcascades) / f"{name}.xml"
    cascade = cv2.CascadeClassifier(str(path)) if path.is_file() else cv2.CascadeClassifier()
    if cascade.empty():
        raise CheckpointError(
            f"{path} is missing or damaged: reinstall opencv-python-headless (at least 4.10 and below 5)"
        )
    return cascade


def _shrunk(image: ImageArray, side_px: int) -> tuple[ImageArray | None, tuple[float, float]]:
    check_image(image)
    small = shrink_to(image, side_px)
    if min(small.shape[:2]) < _SMALLEST_SIDE_PX:
        return None, (1.0, 1.0)
    return small, (image.shape[1] / small.shape[1], image.shape[0] / small.shape[0])


def _boxes(
    found: Sequence[tuple[Any, ...]],
    scale: tuple[float, float],
    shape: tuple[int, ...],
    config: FramingConfig,
    landmarks: Sequence[np.ndarray] | None = None,
) -> list[FaceBox]:
    """Scale to image pixels, drop broken and too small faces, largest first."""
    smallest = config.min_face_share * max(shape[:2])
    points_of_each = [None] * len(found) if landmarks is None else [_points(face, scale) for face in landmarks]
    boxes = [
        FaceBox(x * scale[0], y * scale[1], width * scale[0], height * scale[1], min(score, 1.0), points)
        for (x, y, width, height, score), points in zip(found, points_of_each, strict=True)
        if all(map(math.isfinite, (x, y, width, height, score)))
    ]
    return sorted((box for box in boxes if box.width >= smallest), key=lambda box: -box.width * box.height)


def _points(landmarks: np.ndarray, scale: Point) -> Any:
    """Five points in image pixels."""
    return tuple((float(x) * scale[0], float(y) * scale[1]) for x, y in landmarks)
