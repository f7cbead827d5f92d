"""Networks in ONNX files: a graph of known operations and numbers, nothing that could run other code.

TorchScript files are not taken: loading one runs what is in it. Letters: N images or clips, T frames of a clip.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from personalive.errors import CheckpointError
from personalive.vision.config import FramingConfig
from personalive.vision.resize import ImageArray, Square, crop_and_resize

# ArcFace's five points in a 112 px face (Deng et al.): the eye and mouth corner on the image's left first
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
ARCFACE_SIDE_PX, SMIRK_SIDE_PX, I3D_SIDE_PX = 112, 224, 224


def has_runtime() -> bool:
    """Tell whether onnxruntime is installed."""
    return find_spec("onnxruntime") is not None


class OnnxNetwork:
    """Network of one file, with one input, on the CPU."""

    def __init__(self, path: Path, outputs: tuple[str, ...] = ()) -> None:
        """
        Args:
            outputs: names that the file must have; by default its first output is used.

        Raises:
            CheckpointError: damaged, or another network.
        """
        onnxruntime: Any = import_module("onnxruntime")  # optional, and slow to import
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise CheckpointError(f"{path}: is damaged or no ONNX file: download or export it again") from error
        names = [output.name for output in self._session.get_outputs()]
        missing = set(outputs) - set(names)
        if missing or len(self._session.get_inputs()) != 1:
            raise CheckpointError(
                f"{path}: needs one input and the outputs {', '.join(outputs) or '(any)'}, has {', '.join(names)}: "
                "export it as docs/evaluation.md says"
            )
        self._path, self._input = path, self._session.get_inputs()[0].name
        self._outputs = list(outputs) or names[:1]

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        """float32 of the file's input shape -> its outputs.

        Raises:
            CheckpointError: the network takes another shape.
        """
        try:
            found: list[Any] = list(self._session.run(self._outputs, {self._input: values.astype(np.float32)}))
        except Exception as error:
            raise CheckpointError(
                f"{self._path}: cannot take an input of shape {values.shape}: export it as docs/evaluation.md says"
            ) from error
        return [np.asarray(value) for value in found]


class FaceEmbedder:
    """ArcFace embeddings of the largest face, found and aligned by YuNet's five points."""

    def __init__(self, arcface: Path, yunet: Path) -> None:
        """
        Raises:
            CheckpointError: a file is damaged or another network.
        """
        self._network = OnnxNetwork(arcface)
        try:
            self._detector = cv2.FaceDetectorYN.create(str(yunet), "", (64, 64), FramingConfig.min_score)
        except cv2.error as error:
            raise CheckpointError(f"{yunet}: is not a readable YuNet file: download it again") from error

    def embed(self, image: ImageArray) -> np.ndarray | None:
        """(H, W, 3) uint8 -> (D,) float32, or None where no face is found."""
        points = self._points(image)
        if points is None:
            return None
        face = aligned(image, points)
        return self._network((face.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 127.5)[0].ravel()

    def _points(self, image: ImageArray) -> np.ndarray | None:
        self._detector.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if rows is None:
            return None
        row = max(rows, key=lambda found: found[2] * found[3])
        return np.asarray(row[4:14], np.float64).reshape(5, 2)


class Smirk:
    """Expression and pose parameters of a face (Retsinas et al., CVPR 2024), read from the whole square."""

    def __init__(self, path: Path) -> None:
        self._network = OnnxNetwork(path, ("expression_params", "pose_params"))

    def read(self, image: ImageArray) -> tuple[np.ndarray, np.ndarray]:
        """(S, S, 3) uint8 -> expression and pose parameters, each 1-D."""
        small = _resized(image, SMIRK_SIDE_PX).transpose(2, 0, 1)[None].astype(np.float32) / 255
        expression, pose = self._network(small)
        return expression.ravel(), pose.ravel()


class I3d:
    """Features of clips (Carreira and Zisserman, CVPR 2017)."""

    def __init__(self, path: Path) -> None:
        self._network = OnnxNetwork(path)

    def describe(self, clip: list[ImageArray]) -> np.ndarray:
        """T images (S, S, 3) uint8 -> (D,) features."""
        pixels = np.stack([_resized(image, I3D_SIDE_PX) for image in clip]).transpose(3, 0, 1, 2)[None]
        return self._network(pixels.astype(np.float32) / 127.5 - 1)[0].ravel()


def aligned(image: ImageArray, points: np.ndarray) -> ImageArray:
    """Turn, scale and shift an image so that its five points (5, 2) come to ArcFace's; (112, 112, 3) uint8."""
    matrix = similarity(points, ARCFACE_POINTS)
    side = (ARCFACE_SIDE_PX, ARCFACE_SIDE_PX)
    return cv2.warpAffine(image, matrix, side, flags=cv2.INTER_LINEAR)  # pyright: ignore[reportReturnType]


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, scale and shift (2, 3) that brings points (P, 2) nearest to others in least squares, not mirrored.

    Source: Umeyama, PAMI 1991; in the plane it is a linear regression of complex numbers.
    """
    one, two = source @ np.array([1, 1j]), target @ np.array([1, 1j])
    spread = one - one.mean()
    turn = (spread.conj() @ (two - two.mean())) / (spread.conj() @ spread).real
    shift = two.mean() - turn * one.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _resized(image: ImageArray, side_px: int) -> ImageArray:
    return crop_and_resize(image, Square(0, 0, image.shape[0]), side_px)
