"""Covered mouths and eyes, drawn on generated people, as the real landmark network reads them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from personalive.media.still import load_still
from personalive.runtime.face import load_face_reader
from personalive.vision.face_cover import covered_parts
from personalive.vision.face_landmarks import FaceReader

SHEET = load_still(Path(__file__).parents[2] / "docs" / "images" / "photo.jpg")
PEOPLE = [np.ascontiguousarray(SHEET[232 * row : 232 * row + 232, 928:1160]) for row in (0, 2)]
BELOW_THE_NOSE = [234, 132, 172, 150, 152, 379, 397, 361, 454, 4]


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return load_face_reader()


def parts(reader: FaceReader, image: np.ndarray) -> list[str]:
    reading = reader.read(image)
    assert reading is not None
    return covered_parts(image, reading.landmarks)


def points(reader: FaceReader, image: np.ndarray, places: list[int]) -> np.ndarray:
    reading = reader.read(image)
    assert reading is not None
    return np.round(reading.landmarks[places, :2]).astype(np.int32)


@pytest.mark.parametrize("image", PEOPLE)
def test_a_bare_face_and_one_with_a_mask_and_one_with_dark_glasses(reader: FaceReader, image: np.ndarray):
    assert parts(reader, image) == []
    masked = cv2.fillPoly(image.copy(), [points(reader, image, BELOW_THE_NOSE)], (150, 185, 215))
    assert parts(reader, masked) == ["the mouth"]
    dark = image.copy()
    for x, y in points(reader, image, [468, 473]):
        cv2.circle(dark, (int(x), int(y)), 16, (20, 20, 22), -1)
    assert parts(reader, dark) == ["an eye"]
