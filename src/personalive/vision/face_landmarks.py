"""Landmarks, blendshapes and the regions they are read in, as MediaPipe's face landmarker has them (Apache-2.0).

A face is read in a square crop that is turned until the line through the eyes is level. The first region comes from a
face detector, the next ones from the landmarks before. The networks are those of ``models/face_reader.py``, or
compiled ones that take and give the same tensors.

Image coordinates are in pixels from the middle of the first pixel, x right and y down. z is depth on the same scale,
negative towards the camera, 0 about the middle of the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personalive.device import to_device
from personalive.vision.config import FaceReaderConfig
from personalive.vision.faces import FaceBox, FaceDetector
from personalive.vision.resize import ImageArray, check_image

FloatArray = NDArray[np.float32]
LandmarkNetwork = Callable[[Tensor], tuple[Tensor, Tensor]]  # crops → landmarks in crop pixels, presence logits
BlendshapeNetwork = Callable[[Tensor], Tensor]  # landmarks → coefficients

CROP_SIDE_PX = 256  # weights: side of what the landmark network sees
_EYE_CORNERS = (33, 263)  # outer corners, in a frontal image the left one first; their line is the face's horizontal

# ARKit's names of the coefficients in the order of the weights; "_neutral" is not one of ARKit's, and of no use.
BLENDSHAPE_NAMES = (
    "_neutral",
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight"),
    *("eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight"),
    *("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
_LANDMARKS = 478
_FRAMED = ((0.5, 0.61, 0.55), (0.5, 0.49, 0.47))  # middle and side of a face in a framed square (ten clips)
_INDEX_OF = {name: index for index, name in enumerate(BLENDSHAPE_NAMES)}


@dataclass(frozen=True, slots=True)
class FaceRegion:
    """A square in image pixels: its centre (x, y), its side, and by how far it is turned clockwise, in radians."""

    x: float
    y: float
    side_px: float
    angle: float = 0.0

    def image_to_crop(self) -> NDArray[np.float64]:
        """(2, 3) affine from image pixels to crop pixels; the square's corners become 0 and 256."""
        scale = CROP_SIDE_PX / self.side_px
        right, down = scale * math.cos(self.angle), scale * math.sin(self.angle)
        middle = CROP_SIDE_PX / 2
        return np.array(
            [
                [right, down, middle - right * self.x - down * self.y],
                [-down, right, middle + down * self.x - right * self.y],
            ]
        )

    def to_image(self, landmarks: NDArray[np.floating]) -> FloatArray:
        """(N, 3) landmarks in crop pixels → image pixels, z scaled alike, float32."""
        scale = self.side_px / CROP_SIDE_PX
        inverse = cv2.invertAffineTransform(self.image_to_crop())
        points = landmarks.astype(np.float64)
        flat = points[:, :2] @ inverse[:, :2].T + inverse[:, 2]
        return np.concatenate([flat, scale * points[:, 2:]], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FaceReading:
    """Landmarks and expression of one face in one image; also the state from which the next frame is read."""

    landmarks: FloatArray  # (478, 3) image pixels
    blendshapes: FloatArray  # (52,) in [0, 1], in the order of BLENDSHAPE_NAMES
    presence: float  # [0, 1]

    def blendshape(self, name: str) -> float:
        """One coefficient by its ARKit name.

        Raises:
            KeyError: the name is not in BLENDSHAPE_NAMES.
        """
        return float(self.blendshapes[_INDEX_OF[name]])


def framed_readings(side_px: int) -> list[FaceReading]:
    """Readings that only give the usual places of a face in a framed square: starts for ``FaceReader.read``."""
    return [_placed_reading(x * side_px, y * side_px, side * side_px / 2) for x, y, side in _FRAMED]


def _placed_reading(x: float, y: float, half: float) -> FaceReading:
    landmarks = np.full((_LANDMARKS, 3), (x, y, 0.0), np.float32)
    landmarks[0, :2], landmarks[1, :2] = (x - half, y - half), (x + half, y + half)
    landmarks[_EYE_CORNERS[0], 0], landmarks[_EYE_CORNERS[1], 0] = x - half / 2, x + half / 2
    return FaceReading(landmarks, np.zeros(len(BLENDSHAPE_NAMES), np.float32), 1.0)


def region_of_box(face: FaceBox, config: FaceReaderConfig) -> FaceRegion:
    """First region of a face: around its box, level with its eyes where the detector found them."""
    angle = 0.0
    if face.landmarks is not None:
        (left_x, left_y), (right_x, right_y) = face.landmarks[:2]
        angle = math.atan2(right_y - left_y, right_x - left_x)
    x, y = face.centre
    down, side = config.box_down_shift * face.side_px, config.box_scale * face.side_px
    return FaceRegion(x - down * math.sin(angle), y + down * math.cos(angle), side, angle)


def region_of_landmarks(landmarks: FloatArray, config: FaceReaderConfig) -> FaceRegion:
    """Region in which to read the same face again, from its (478, 3) landmarks in image pixels (MediaPipe)."""
    least, most = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    x, y = (least + most) / 2
    across, down = landmarks[_EYE_CORNERS[1], :2] - landmarks[_EYE_CORNERS[0], :2]
    side = config.landmarks_scale * max(float((most - least).max()), 1.0)
    return FaceRegion(float(x), float(y), side, math.atan2(down, across))


def crop_region(image: ImageArray, region: FaceRegion) -> ImageArray:
    """(H, W, 3) uint8 → the region as (256, 256, 3) uint8, bilinear, black outside the image."""
    size = (CROP_SIDE_PX, CROP_SIDE_PX)
    return cv2.warpAffine(image, region.image_to_crop(), size, flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: small layers gain little by more, and wait for those on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class FaceReader:
    """Reads the largest face of an image, or follows one through frames. Keeps no state of a face.

    The detector has native state of its own: use a reader from one thread at a time.
    """

    def __init__(
        self,
        landmark_network: LandmarkNetwork,
        blendshape_network: BlendshapeNetwork,
        detector: FaceDetector,
        config: FaceReaderConfig | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Use networks that lie on ``device`` (the CPU unless given)."""
        self._landmark_network = landmark_network
        self._blendshape_network = blendshape_network
        self._detector = detector
        self._config = config or FaceReaderConfig()
        self._device = device or torch.device("cpu")

    def read(self, image: ImageArray, *previous: FaceReading | None) -> FaceReading | None:
        """Read a face in an (H, W, 3) uint8 RGB image.

        With the reading of the frame before, the face is looked for where it was, which needs no detector; with
        several readings, in one place after the other. Without one, or when it is gone, the largest face that the
        detector finds is read. None when there is no face.

        Raises:
            InputError: the image has another shape or dtype.
        """
        check_image(image)
        with torch.inference_mode(), _one_thread():
            places = (self._again(image, reading.landmarks) for reading in previous if reading is not None)
            found = next((place for place in places if place is not None), None) or self._detected(image)
            if found is None:
                return None
            landmarks, presence = found
            points = to_device(torch.from_numpy(landmarks[None]), self._device)
            blendshapes = self._blendshape_network(points)[0].float().cpu().numpy()
        return FaceReading(landmarks, blendshapes, presence)

    def _detected(self, image: ImageArray) -> tuple[FloatArray, float] | None:
        faces = self._detector.detect(image)
        found = self._within(image, region_of_box(faces[0], self._config)) if faces else None
        for _ in range(self._config.refinements):
            found = None if found is None else self._again(image, found[0])
        return found

    def _again(self, image: ImageArray, landmarks: FloatArray) -> tuple[FloatArray, float] | None:
        return self._within(image, region_of_landmarks(landmarks, self._config))

    def _within(self, image: ImageArray, region: FaceRegion) -> tuple[FloatArray, float] | None:
        """Landmarks in image pixels and face presence, or None where the presence is too low."""
        crop = torch.from_numpy(crop_region(image, region)).permute(2, 0, 1)[None]
        landmarks, logit = self._landmark_network(to_device(crop, self._device).float() / 255)
        presence = float(torch.sigmoid(logit.float())[0])
        if presence < self._config.min_presence:
            return None
        return region.to_image(landmarks[0].float().cpu().numpy()), presence
