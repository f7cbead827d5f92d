"""Person and background of a portrait: a drawn person of known outline."""

from __future__ import annotations

import cv2
import numpy as np

from personalive.vision.face_person import person_mask
from support.drawn_face import drawn_face

SIDE_PX = 300


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, landmarks and true mask of a head with shoulders before a wall of stripes."""
    landmarks = drawn_face(4, SIDE_PX).landmarks_px
    (left, top), (right, bottom) = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    middle, half = int((left + right) / 2), int((right - left) / 2)
    truth = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    head = (middle, int((top + bottom) / 2 - 0.1 * (bottom - top)))
    cv2.ellipse(truth, head, (int(1.2 * half), int(0.72 * (bottom - top))), 0, 0, 360, 255, -1)
    cv2.ellipse(truth, (middle, SIDE_PX + 20), (int(2.6 * half), int(SIDE_PX - bottom)), 0, 0, 360, 255, -1)
    rng = np.random.default_rng(0)
    image = np.full((SIDE_PX, SIDE_PX, 3), (90, 120, 160), np.uint8)
    image[:, ::20] = (60, 90, 130)
    image[truth > 0] = (200, 150, 120)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8), landmarks, truth


def test_the_outline_is_found_and_is_the_same_every_time():
    image, landmarks, truth = drawn()
    found = person_mask(image, landmarks)
    assert set(np.unique(found)) == {0, 255}
    wanted = cv2.resize(truth, found.shape[::-1], interpolation=cv2.INTER_AREA) > 127
    overlap = ((found > 0) & wanted).sum() / ((found > 0) | wanted).sum()
    assert overlap > 0.93
    cv2.randu(np.zeros((3, 3), np.uint8), 0, 255)  # whatever else has drawn
    np.testing.assert_array_equal(found, person_mask(image, landmarks))
