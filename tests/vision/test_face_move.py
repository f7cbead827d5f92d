"""A moved portrait: at rest it is the portrait, and jaw, lids, head and background do what a viewer expects."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.vision.face_fit import fit_face
from personalive.vision.face_model import EYE, GUM, MOUTH, SKIN, TOOTH, face_model
from personalive.vision.face_move import FaceMotion, compose, move, moved_image, moved_places
from personalive.vision.face_portrait import MovablePortrait, movable_portrait
from personalive.vision.warps import places
from support.synthetic_face import SyntheticFace, synthetic_face, turn

SIZE = 128


def still() -> np.ndarray:
    return np.zeros(len(face_model().expression_names), np.float32)


def values(**named: float) -> np.ndarray:
    found = still()
    for name, value in named.items():
        found[face_model().index(name)] = value
    return found


def pattern() -> np.ndarray:
    """Smooth colours by place, so that a colour tells where it was taken."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    return np.stack([2 * x, 2 * y, 0 * x + 90], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def face() -> SyntheticFace:
    return synthetic_face(4, SIZE)


@pytest.fixture(scope="module")
def portrait(face: SyntheticFace) -> MovablePortrait:
    return movable_portrait(pattern(), fit_face(face.landmarks_px))


def share(part: np.ndarray, *kinds: int) -> int:
    return int(np.isin(part, kinds).sum())


@pytest.mark.parametrize("size_px", [64, 128])
def test_at_rest_it_is_the_portrait(portrait: MovablePortrait, size_px: int):
    moved = move(portrait, FaceMotion(still()), size_px)
    off = np.abs(moved.field - places(size_px, "cpu")[0].numpy())[moved.paint_share < 0.01]
    assert off.max() < 2.5 / SIZE
    assert off.mean() < 0.2 / SIZE
    step = SIZE // size_px
    wrong = np.abs(compose(portrait, moved).astype(int) - pattern()[step // 2 :: step, step // 2 :: step])
    assert np.median(wrong) <= 2


def test_an_open_jaw_shows_the_mouth_and_a_shut_one_does_not(portrait: MovablePortrait):
    shut, open_ = (move(portrait, FaceMotion(values(jawOpen=jaw)), SIZE) for jaw in (0.0, 0.7))
    inside, before = ((moved.part != SKIN) & (moved.part != EYE) & (moved.part != 255) for moved in (open_, shut))
    assert inside.sum() > 40
    assert before.sum() < 0.3 * inside.sum()
    assert share(open_.part, TOOTH) > 0
    assert open_.paint_share[inside].mean() > 0.6
    lip = face_model().rims["lip_inner_lower_right"][-1]
    assert open_.places_px[lip, 1] > shut.places_px[lip, 1] + 4


@pytest.mark.parametrize("pitch_deg", [-20.0, -32.0])
def test_nothing_of_the_mouth_shows_below_a_raised_chin(portrait: MovablePortrait, pitch_deg: float):
    found = move(portrait, FaceMotion(values(jawOpen=0.3), rotation=turn(0.0, pitch_deg, 0.0)), 4 * SIZE)
    rims = np.concatenate([rim for name, rim in face_model().rims.items() if name.startswith("lip_inner")])
    lips = found.places_px[rims, :2]
    rows, columns = np.nonzero(np.isin(found.part, [TOOTH, GUM]))
    assert (np.nonzero(found.part == MOUTH)[0] <= lips[:, 1].max() + 2).all()  # above there are nostrils
    assert (lips[:, 1].min() - 2 <= rows).all() and (rows <= lips[:, 1].max() + 2).all()
    assert (lips[:, 0].min() - 2 <= columns).all() and (columns <= lips[:, 0].max() + 2).all()


def test_shut_lids_hide_the_eyes_wholly(portrait: MovablePortrait):
    eyes = [share(move(portrait, FaceMotion(still(), closing=(k, k)), 2 * SIZE).part, EYE) for k in (0.0, 0.5, 1.0)]
    assert eyes[0] > 1.5 * eyes[1] > 0
    assert eyes[2] <= 0.02 * eyes[0]
    wink = move(portrait, FaceMotion(still(), closing=(1.0, 0.0)), 2 * SIZE).part == EYE
    assert share(np.where(wink, EYE, 255), EYE) == pytest.approx(eyes[0] / 2, rel=0.3)
    assert wink[:, SIZE:].sum() > 20 * max(wink[:, :SIZE].sum(), 1)  # the right eye lies left


def test_the_head_turns_shifts_and_grows(portrait: MovablePortrait):
    def nose(**how: object) -> np.ndarray:
        motion = FaceMotion(still(), **how)  # type: ignore[arg-type]
        tip = face_model().pins[np.flatnonzero((face_model().pin_landmarks == 1).all(1))[0]]
        return moved_places(portrait.fit, motion, SIZE)[0][tip]

    assert nose(rotation=turn(15))[0] > nose()[0] + 5
    assert nose(rotation=turn(0, 15))[1] > nose()[1] + 3
    np.testing.assert_allclose(nose(shift=(0.1, -0.05)) - nose(), [0.1 * SIZE, -0.05 * SIZE, 0], atol=0.01)
    assert nose(scale=1.2)[1] < nose()[1]  # about the neck


def test_where_the_face_meets_its_surroundings_they_move_alike(portrait: MovablePortrait):
    """No second contour: the field has no jump at the oval's rim on the side that comes nearer."""
    moved = move(portrait, FaceMotion(still(), rotation=turn(8)), SIZE)
    inside = (moved.part == SKIN) & (moved.paint_share == 0)
    steps = np.abs(np.diff(moved.field, axis=1)).max(-1) * SIZE / 2
    both = inside[:, :-1] | inside[:, 1:]
    assert np.quantile(steps[both], 0.99) < 3.0


def test_a_mask_keeps_the_background_still(face: SyntheticFace):
    flat = np.full((SIZE, SIZE, 3), 200, np.uint8)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    person = np.hypot(x - 64, (y - 60) * 0.8) < 42
    flat[person] = (120, 80, 60)
    layered = movable_portrait(flat, fit_face(face.landmarks_px), (255 * person).astype(np.uint8))
    turned = compose(layered, move(layered, FaceMotion(still(), rotation=turn(15), shift=(0.1, 0.0)), SIZE))
    assert np.abs(turned[:20, :20].astype(int) - 200).max() <= 2
    assert turned[60, 110].tolist() != flat[60, 110].tolist()  # the head came there
    uncovered = turned[55:65, 26:30].reshape(-1, 3)
    assert np.abs(uncovered.astype(int) - 200).max() < 40  # background behind where it was


def test_pixels_come_at_the_portraits_own_sharpness(face: SyntheticFace):
    fit = fit_face(face.landmarks_px)
    noise = np.random.default_rng(0).integers(60, 200, (SIZE, SIZE, 1), dtype=np.uint8).repeat(3, 2)
    sharp = movable_portrait(noise, fit)
    out = compose(sharp, move(sharp, FaceMotion(still(), shift=(4 / SIZE, 0.0)), SIZE))
    assert out[50:80, 50:80].std() > 0.85 * noise[50:80, 46:76].std()


def test_only_square_images_are_taken(face: SyntheticFace):
    with pytest.raises(InputError, match="give a square RGB image"):
        movable_portrait(np.zeros((10, 12, 3), np.uint8), fit_face(face.landmarks_px))


def test_more_samples_show_the_same_image(portrait: MovablePortrait):
    motion = FaceMotion(values(jawOpen=0.4), rotation=turn(8))
    plain, fine = (moved_image(portrait, motion, SIZE, samples).astype(int) for samples in (1, 2))
    np.testing.assert_array_equal(plain, compose(portrait, move(portrait, motion, SIZE)))
    assert np.abs(plain - fine).mean() < 2
