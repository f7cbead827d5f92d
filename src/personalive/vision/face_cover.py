"""Parts of a face that something covers: a mask, a hand, dark glasses, hair (ours).

The landmark network places lips and eyes also where they cannot be seen, and is as sure of it. What is seen there
tells: lips differ from the skin around them, that skin hardly from a forehead in colour, and an eye has bright and
dark places.
"""

from __future__ import annotations

import cv2
import numpy as np

from personalive.vision.resize import ImageArray

# Landmarks of MediaPipe.
_LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
_INNER_LIPS = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]
_EYES = (
    [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
    [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466],
)
_LOWER_SKIN = [164, 199, 205, 425]  # above and below the lips, and beside them
_UPPER_SKIN = [6, 8, 9, 117, 151, 346]  # between the eyes and above, under their outer corners

# In OpenCV's 8-bit Lab; chosen on 180 photographs, and on 60 of them with masks, bars, glasses and strands drawn on.
_EYE_LEVELS = 10.0  # standard deviation of an open eye's lightness
_EYE_GROWN = 1.6  # sides of the region looked at, in those of the eye
_LIP_LEVELS, _NEAR_LEVELS = 4.0, 6.0  # between lips and what surrounds them, which then differs from skin by so much
_FAR_LEVELS = 30.0  # in colour, between the upper and the lower half of a face


def covered_parts(image: ImageArray, landmarks: np.ndarray) -> list[str]:
    """Parts of a face that cannot be seen: "the mouth", "an eye", in this order.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (478, 3) image pixels.
    """
    points = landmarks[:, :2]
    side_px = float(np.linalg.norm(points[33] - points[263]))  # between the outer corners of the eyes
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), max(side_px / 60, 0.5)).astype(np.float32)
    lips = _inside(image, points[_LIPS]) & ~_inside(image, points[_INNER_LIPS])
    lower, upper = (_skin(lab, points[places], side_px) for places in (_LOWER_SKIN, _UPPER_SKIN))
    differs = np.linalg.norm((upper - lower)[1:])
    even = lips.any() and np.linalg.norm(np.median(lab[lips], axis=0) - lower) < _LIP_LEVELS
    found = ["the mouth"] * bool(differs > (_NEAR_LEVELS if even else _FAR_LEVELS))
    eyes = (_inside(image, middle + _EYE_GROWN * (points[eye] - middle)) for eye, middle in _middles(points))
    return found + ["an eye"] * any(eye.any() and lab[eye][:, 0].std() < _EYE_LEVELS for eye in eyes)


def _middles(points: np.ndarray) -> list[tuple[list[int], np.ndarray]]:
    return [(eye, points[eye].mean(axis=0)) for eye in _EYES]


def _inside(image: ImageArray, polygon: np.ndarray) -> np.ndarray:
    """(H, W) bool."""
    mask = np.zeros(image.shape[:2], np.uint8)
    return cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1).astype(bool)


def _skin(lab: np.ndarray, places: np.ndarray, side_px: float) -> np.ndarray:
    """Median Lab colour (3,) of small squares around these places."""
    reach = max(int(side_px / 14), 1)
    squares = []
    for x, y in np.round(places).astype(int):
        square = lab[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        if square.size:
            squares.append(np.median(square.reshape(-1, 3), axis=0))
    return np.median(squares, axis=0) if squares else np.zeros(3, np.float32)
