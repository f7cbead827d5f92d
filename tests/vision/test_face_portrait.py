"""A prepared portrait: behind the person it looks as beside it, and a head that the top cuts off goes on round."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.vision.face_fit import fit_face
from personalive.vision.face_model import face_model
from personalive.vision.face_move import FaceMotion, moved_image
from personalive.vision.face_portrait import MovablePortrait, movable_portrait
from support.synthetic_face import synthetic_face

SIZE = 128
BACKGROUND, SKIN = 180, 60


def prepared(background: np.ndarray, top: int, narrow: float = 1.3) -> MovablePortrait:
    """Portrait before a background (S, S), an ellipse of a person that begins at row ``top``; of 1 it is a circle."""
    y, x = np.mgrid[:SIZE, :SIZE]
    middle = top + 54
    person = np.hypot((x - 64) * narrow, y - middle) < 54
    image = np.where(person, SKIN, background).astype(np.uint8)[..., None].repeat(3, 2)
    return movable_portrait(image, fit_face(synthetic_face(4, SIZE).landmarks_px), (255 * person).astype(np.uint8))


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    return np.zeros(len(face_model().expression_names), np.float32)


def test_texture_goes_on_behind_the_person() -> None:
    noise = np.random.default_rng(0).normal(BACKGROUND, 20, (SIZE, SIZE)).clip(0, 255)
    behind = prepared(noise, 10).background
    assert behind is not None
    assert behind[60:70, 24:30].std() > 0.2 * noise.std()  # just inside the outline
    assert behind[60:70, 60:68].std() < 0.1 * noise.std()  # where no turn uncovers it


def test_a_plain_background_stays_plain_and_things_beside_the_person_do_not_come_twice() -> None:
    plain = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    plain[:, 10:14] = 20  # a post
    behind = prepared(plain, 10).background
    assert behind is not None
    assert np.abs(behind[20:100, 60:70] - BACKGROUND).max() < 25
    assert behind[40:80, 28:50].min() > BACKGROUND - 60


def test_a_horizon_goes_on_behind_the_person() -> None:
    horizon = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    horizon[64:] = 90
    behind = prepared(horizon, 10).background
    assert behind is not None
    assert np.abs(behind[40:56, 30:100] - BACKGROUND).max() < 25
    assert np.abs(behind[72:90, 30:100] - 90).max() < 25


@pytest.mark.parametrize("cut", [4, 14, 24])
def test_a_head_that_is_cut_off_is_as_high_as_its_outline_tells(cut: int) -> None:
    above = prepared(np.full((SIZE, SIZE), BACKGROUND, np.uint8), -cut, narrow=1.0).above
    assert above[64] == pytest.approx(cut, rel=0.25, abs=2.5)
    assert not above[[10, 118]].any()
    assert np.argmax(above) in range(60, 69)


@pytest.mark.parametrize("down", [0.04, 0.1])
def test_a_head_that_touches_the_top_leaves_nothing_above_it(still: np.ndarray, down: float) -> None:
    touching = prepared(np.full((SIZE, SIZE), BACKGROUND, np.uint8), -1)
    moved = moved_image(touching, FaceMotion(still, shift=(0.0, down)), SIZE)
    assert moved[0, 56:72].min() > BACKGROUND - 25


def test_a_head_that_is_cut_by_the_top_goes_on(still: np.ndarray) -> None:
    cut = prepared(np.full((SIZE, SIZE), BACKGROUND, np.uint8), -30)
    moved = moved_image(cut, FaceMotion(still, shift=(0.0, 0.04)), SIZE)
    assert moved[0, 56:72].max() < SKIN + 25
