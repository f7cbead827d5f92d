"""Boxes of face, eyes and mouth: from a detected face, over time, and as masks.

Letters: F frames, S image side. Boxes are (left, top, right, bottom) in pixels, right and bottom exclusive.
"""

from __future__ import annotations

import numpy as np

from personalive.vision.faces import FaceBox

BOX_NAMES = ("face", "eye_left", "eye_right", "mouth")  # left and right as seen in a frontal image
_MASK_BOXES = ((0,), (1, 2), (3,))  # face, eyes, mouth
# Extents in eye distances from the landmarks: left, top, right, bottom. Measured on synthetic heads, whose true
# regions are known; the shares on the same faces for both detectors.
_EYE = np.array([-0.36, -0.24, 0.36, 0.2])  # around each eye
_MOUTH = np.array([-0.56, -0.24, 0.56, 0.4])  # around the middle of its corners
_MIN_EYE_DISTANCE = 0.35  # in face widths: heads turned away keep boxes of a sensible size
# where the landmarks lie in the face box where a detector finds none, in widths and heights
_EYE_SHARES = (0.25, 0.41)  # of the eye on the left; the other one mirrored
_MOUTH_SHARE = 0.75  # height


def part_boxes(face: FaceBox) -> np.ndarray:
    """(4, 4) float64 in the order of ``BOX_NAMES``.

    From the face's landmarks; without them, from where they lie in most faces.
    """
    if face.landmarks is not None:
        points = np.array(face.landmarks)
        eyes, mouth = points[:2], points[3:].mean(axis=0)  # the middle between the corners
    else:
        corner, size, (across, down) = np.array([face.x, face.y]), np.array([face.width, face.height]), _EYE_SHARES
        eyes = corner + size * np.array([[across, down], [1 - across, down]])
        mouth = corner + size * np.array([0.5, _MOUTH_SHARE])
    unit = max(float(np.hypot(*(eyes[1] - eyes[0]))), _MIN_EYE_DISTANCE * face.width)
    whole = [face.x, face.y, face.x + face.width, face.y + face.height]
    eye, lips = _EYE * unit, _MOUTH * unit
    return np.array([whole, np.tile(eyes[0], 2) + eye, np.tile(eyes[1], 2) + eye, np.tile(mouth, 2) + lips])


def fill_and_smooth(boxes: np.ndarray, deviation_frames: float) -> np.ndarray:
    """(F, ...) float with NaN where nothing is known -> the same without: linear between, constant at the ends.

    Then smoothed over time by a Gaussian of the given deviation. At least one frame must be known.
    """
    flat = boxes.reshape(len(boxes), -1)
    at = np.arange(len(boxes))
    known = ~np.isnan(flat[:, 0])
    filled = np.stack([np.interp(at, at[known], column[known]) for column in flat.T], axis=1)
    reach = int(np.ceil(3 * deviation_frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation_frames) ** 2)
    padded = np.pad(filled, ((reach, reach), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T], axis=1)
    return smooth.reshape(boxes.shape)


def box_masks(boxes: np.ndarray, size_px: int) -> np.ndarray:
    """(..., 4, 4) boxes to (..., 3, S, S) bool: face, eyes, mouth. A pixel is in a box when its middle is."""
    middle = np.arange(size_px) + 0.5
    left, top, right, bottom = (boxes[..., i, None] for i in range(4))
    columns, rows = (middle >= left) & (middle < right), (middle >= top) & (middle < bottom)
    inside = rows[..., :, None] & columns[..., None, :]
    return np.stack([inside[..., list(parts), :, :].any(axis=-3) for parts in _MASK_BOXES], axis=-3)
