"""Landmarks of a face that the morphable model makes: what a detector would find on it, and the truth behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personalive.vision.face_fit import FacePose
from personalive.vision.face_model import LANDMARKS, face_model


@dataclass(frozen=True)
class SyntheticFace:
    """A face in an image: landmarks (478, 3) px as MediaPipe gives them, the shape (V, 3) and its pose."""

    landmarks_px: np.ndarray
    shape: np.ndarray
    pose: FacePose


def turn(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """(3, 3) rotation for column vectors, y up, z to the camera; + turns to image right, down and clockwise."""
    y, x, z = np.radians([yaw_deg, pitch_deg, -roll_deg])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def synthetic_face(seed: int = 0, size_px: int = 128, *, yaw_deg: float = 0.0, **expression: float) -> SyntheticFace:
    """Random identity in the middle of a square image, its head half as high as that."""
    model, rng = face_model(), np.random.default_rng(seed)
    shape = model.neutral + np.tensordot(
        rng.normal(0, 0.7, len(model.identities)).astype(np.float32), model.identities, 1
    )
    for name, value in expression.items():
        shape = shape + np.float32(value) * model.expressions[model.index(name)]
    pose = FacePose(turn(yaw_deg), size_px / 34, np.array([0.5 * size_px, 0.5 * size_px]))
    placed = pose.place(shape) * [1, 1, -1]
    total, weight = np.zeros((LANDMARKS, 3)), np.full((LANDMARKS, 1), 1e-9)
    for pin, pair, w in zip(model.pins, model.pin_landmarks, model.pin_weights, strict=True):
        for mark, share in zip(pair, (1 - w, w), strict=True):
            sharp = float(share) ** 8 + 1e-6  # the pin nearest to a landmark places it
            total[mark] += sharp * placed[pin]
            weight[mark] += sharp
    landmarks = total / weight
    for first, side in ((468, 0), (473, 1)):
        centre = pose.place(model.eyeballs[side : side + 1, :3] + [[0, 0, 1.4]])[0]
        radius = 0.6 * pose.scale_px
        landmarks[first] = centre
        landmarks[first + 1 : first + 5, :2] = centre[:2] + radius * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    return SyntheticFace(landmarks, shape, pose)
