"""A clip while it is being written, and the judgement whether to keep it (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from personalive.training.data.prepare.boxes import BOX_NAMES, fill_and_smooth, part_boxes
from personalive.training.data.prepare.clip_file import FilmWriter, tensor_bytes
from personalive.training.data.prepare.config import PartBoxConfig, PrepareConfig
from personalive.training.data.prepare.stretches import View
from personalive.vision.faces import FaceBox, FaceDetector
from personalive.vision.resize import Square


class Drop(StrEnum):
    """Reason why something is not in the set."""

    UNREADABLE = "unreadable"
    NO_FACE = "no face"
    TOO_SHORT = "too short"
    LOW_RATE = "low frame rate"
    LOW_RESOLUTION = "low resolution"
    SMALL_FACE = "face too small"
    FACE_LOST = "face lost"
    SEVERAL_FACES = "several faces"
    BLURRED = "blurred"


EXPLAINED = {
    Drop.UNREADABLE: "the file cannot be decoded",
    Drop.NO_FACE: "no face is seen",
    Drop.TOO_SHORT: "a face in one shot, without a pause, but too briefly; or the end of a long shot",
    Drop.LOW_RATE: "too many frames would show the image before",
    Drop.LOW_RESOLUTION: "the square around the head would have to be enlarged too much",
    Drop.SMALL_FACE: "the face fills too little of its square, because it moves about",
    Drop.FACE_LOST: "in too many frames the face cannot be found",
    Drop.SEVERAL_FACES: "a second face is in the square",
    Drop.BLURRED: "the face is out of focus or smeared by compression",
}


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """Index entry of a kept clip, beside its names and sizes of files."""

    start_s: float  # in the video
    frames: int
    square: tuple[int, int, int]  # what of the video's image is shown: left, top, side in pixels
    face_share: float  # larger side of the face over the square's, median
    sharpness: float  # median
    found_share: float  # of the detections
    repeated: int  # frames that show the image before
    landmarks: str  # "detected", or "shares" where eye and mouth boxes come from the face box alone


class Draft:
    """One stretch of a video on its way to become a clip: images go to ``path``, the rest stays in memory."""

    def __init__(self, path: Path, size_px: int, detector: FaceDetector, config: PrepareConfig) -> None:
        self._film = FilmWriter(path, size_px, config.fps, config.jpeg_quality)
        self._size_px, self._detector, self._config = size_px, detector, config
        self._boxes: list[np.ndarray] = []
        self._times: list[Fraction] = []
        self._faces: list[FaceBox] = []
        self._sharpness: list[float] = []
        self._detections = self._seconds = self._repeated = 0
        self._start: Fraction | None = None
        self._square = Square(0, 0, 0)

    @property
    def frames(self) -> int:
        """Frames so far."""
        return self._film.frames

    @property
    def start_s(self) -> float:
        """Start time in its video."""
        return float(self._start or 0)

    def add(self, view: View) -> None:
        """The next frame, which must show the face."""
        if self._start is None:
            self._start, self._square = view.time, view.square or self._square
        boxes = np.full((len(BOX_NAMES), 4), np.nan)
        if self.frames % self._config.detect_every_frames == 0:
            boxes = self._detect(view.image, boxes)
        self._boxes.append(boxes)
        self._times.append(view.source_time)
        self._repeated += view.repeated
        self._film.add(view.image)

    def _detect(self, image: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        self._detections += 1
        faces = self._detector.detect(image)
        if not faces:
            return unknown
        first = faces[0]
        second = len(faces) > 1 and faces[1].side_px >= self._config.second_face_share * first.side_px
        self._seconds += second
        self._faces.append(first)
        self._sharpness.append(sharpness(image, first, self._config.sharpness_side_px))
        return part_boxes(first, PartBoxConfig())

    def verdict(self) -> Drop | None:
        """None to keep it, else the first reason against it."""
        config = self._config
        if self.frames < round(config.min_clip_s * config.fps):
            return Drop.TOO_SHORT
        checks = {
            Drop.LOW_RATE: self._repeated > config.max_repeated_share * self.frames,
            Drop.LOW_RESOLUTION: self._square.side_px * config.max_enlargement < self._size_px,
            Drop.FACE_LOST: len(self._faces) < config.min_found_share * self._detections,
            Drop.SEVERAL_FACES: self._seconds > config.max_second_share * self._detections,
        }
        reason = next((reason for reason, failed in checks.items() if failed), None)
        if reason is None and self._face_share() < config.min_face_share:
            return Drop.SMALL_FACE
        if reason is None and float(np.median(self._sharpness)) < config.min_sharpness:
            return Drop.BLURRED
        return reason

    def _face_share(self) -> float:
        return float(np.median([face.side_px for face in self._faces])) / self._size_px

    def finish(self) -> tuple[bytes, ClipFacts]:
        """Close the video; gives the content of the tensor file and what the index should say."""
        spans = self._film.close()
        boxes = fill_and_smooth(np.stack(self._boxes), self._config.box_smoothing_frames).clip(0, self._size_px)
        found = ~np.isnan(np.stack(self._boxes)[:, 0, 0])
        detected = all(face.landmarks is not None for face in self._faces)
        facts = ClipFacts(
            start_s=round(self.start_s, 6),
            frames=self.frames,
            square=(self._square.x, self._square.y, self._square.side_px),
            face_share=round(self._face_share(), 4),
            sharpness=round(float(np.median(self._sharpness)), 4),
            found_share=round(len(self._faces) / self._detections, 4),
            repeated=self._repeated,
            landmarks="detected" if detected else "shares",
        )
        return tensor_bytes(spans, boxes, found, np.array(self._times, np.float64)), facts

    def discard(self) -> None:
        """Delete what was written."""
        self._film.discard()


def sharpness(image: np.ndarray, face: FaceBox, side_px: int) -> float:
    """Variance of the Laplacian of the face's brightness over the variance of the brightness itself.

    The face is brought to ``side_px`` first, so that faces of any size can be compared.
    """
    height, width = image.shape[:2]
    left, right = np.clip([face.x, face.x + face.width], 0, width).astype(int)
    top, bottom = np.clip([face.y, face.y + face.height], 0, height).astype(int)
    crop = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    if not crop.size:
        return 0.0
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_AREA if min(grey.shape) >= side_px else cv2.INTER_CUBIC
    grey = cv2.resize(grey, (side_px, side_px), interpolation=method).astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var() / max(float(grey.var()), 1.0))
