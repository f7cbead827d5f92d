"""A driver's values on someone else: nothing at rest, lids wholly, jaw in proportion, robust at the start."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.vision.face_model import face_model
from personalive.vision.face_transfer import JAW_TRIED, driver_neutral, face_values, limited_turn, transferred
from support.synthetic_face import turn

NAMES = ("_neutral", "jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "browInnerUp", "eyeLookOutLeft")


def clip(frames: int = 40) -> np.ndarray:
    """Values (F, names) of a driver who rests with slightly open mouth and narrow eyes."""
    rest = np.array([0.5, 0.1, 0.2, 0.2, 0.05, 0.0, 0.0])
    return np.tile(rest, (frames, 1))


def test_values_are_put_in_the_models_order():
    found = face_values(clip(1), NAMES)[0]
    model = face_model()
    assert found[model.index("eyeBlink_L")] == pytest.approx(0.2)
    assert found[model.index("mouthSmile_L")] == pytest.approx(0.05)
    assert found[model.index("mouthSmile_R")] == 0
    inner = face_values(np.eye(7)[5:6], NAMES)[0]
    assert inner[model.index("browInnerUp_L")] == inner[model.index("browInnerUp_R")] == 1


def test_a_driver_at_rest_moves_nothing():
    found = face_values(clip(), NAMES)
    motion = transferred(found[5], driver_neutral(found))
    assert np.abs(motion.expression).max() < 1e-6
    assert motion.closing == (0.0, 0.0)
    assert motion.gaze == (0.0, 0.0)


@pytest.mark.parametrize("rest", [0.02, 0.3])
def test_a_shut_eye_shuts_wholly_and_half_does_half(rest: float):
    raw = clip()
    raw[:, 2:4] = rest
    raw[10, 2:4] = 0.65
    raw[11, 2] = (rest + 0.62) / 2
    found = face_values(raw, NAMES)
    neutral = driver_neutral(found)
    assert transferred(found[10], neutral).closing == (1.0, 1.0)
    right, left = transferred(found[11], neutral).closing
    assert (right, left) == (pytest.approx(0.0, abs=1e-6), pytest.approx(0.5, abs=0.01))


def test_the_jaw_opens_in_proportion_from_its_rest():
    raw = clip()
    raw[:, 1] = 0.1 + np.linspace(0, 0.8, len(raw))
    raw[:20, 1] = 0.1
    found = face_values(raw, NAMES)
    neutral = driver_neutral(found)
    jaws = np.array([transferred(v, neutral).expression[face_model().index("jawOpen")] for v in found])
    assert jaws[0] == 0
    assert (np.diff(jaws) >= 0).all()
    assert 0.7 < jaws[-1] <= 1.1


def test_neutral_is_found_in_a_clip_that_begins_with_an_open_mouth():
    raw = clip()
    raw[:10, 1] = 0.6
    neutral = driver_neutral(face_values(raw, NAMES))
    assert neutral[face_model().index("jawOpen")] == pytest.approx(0.1)


def test_eyes_look_where_the_driver_looks():
    raw = clip()
    raw[3, 6] = 0.8  # the left eye outwards: image right
    found = face_values(raw, NAMES)
    right, down = transferred(found[3], driver_neutral(found)).gaze
    assert right == pytest.approx(0.4)
    assert down == 0


def test_values_without_names_are_refused():
    with pytest.raises(InputError, match="give ARKit's"):
        face_values(clip(), NAMES[:3])
    with pytest.raises(InputError, match="give ARKit's"):
        face_values(clip()[:, :1], ("smile",))


def test_turns_are_free_up_to_a_point_and_never_go_beyond_the_limit():
    np.testing.assert_allclose(limited_turn(turn(10, 5, 40)), turn(10, 5, 40), atol=0.05)
    far = limited_turn(turn(80))
    assert 25 < np.degrees(np.arcsin(far[0, 2])) <= 32
    nod = limited_turn(turn(0, -60))
    assert -20 <= np.degrees(np.arcsin(nod[2, 1])) < -15
    np.testing.assert_allclose(far @ far.T, np.eye(3), atol=1e-9)


def test_a_smiling_portrait_lets_its_smile_go_so_that_the_drivers_is_seen():
    found = face_values(clip(), NAMES)
    rest = np.zeros(found.shape[1])
    smile, jaw = face_model().index("mouthSmile_L"), face_model().index("jawOpen")
    rest[[smile, jaw]] = 0.5
    motion = transferred(found[0], driver_neutral(found), rest=rest)
    assert -0.75 < motion.expression[smile] < -0.5  # a fit sees half of a smile
    assert motion.expression[jaw] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("driven", [0.05, 0.2, 0.35])
def test_a_portrait_opens_its_mouth_until_as_much_is_read_off_it(driven: float):
    """Off this one, twice as much is read as of the value that opens it, beyond what is read at rest."""
    jaw = face_model().index("jawOpen")
    read = 0.05 + 0.8 * np.array(JAW_TRIED)
    neutral = np.zeros(len(face_model().expression_names), np.float32)
    values = neutral.copy()
    values[jaw] = driven
    usual = transferred(values, neutral).expression[jaw]
    own = transferred(values, neutral, jaw_read=read).expression[jaw]
    assert own == pytest.approx(driven / 0.8, abs=0.01)
    assert own < usual


@pytest.mark.parametrize(
    ("read", "share"), [((0.0, 0.0, 0.0, 0.0), 1.6), ((0.3, 0.2, 0.1, 0.0), 1.6), ((0, 9, 9, 9), 0.5)]
)
def test_what_is_read_off_a_poor_mouth_changes_little(read: tuple[float, ...], share: float):
    jaw = face_model().index("jawOpen")
    neutral = np.zeros(len(face_model().expression_names), np.float32)
    values = neutral.copy()
    values[jaw] = 0.3
    usual = transferred(values, neutral).expression[jaw]
    assert transferred(values, neutral, jaw_read=np.array(read, float)).expression[jaw] == pytest.approx(
        share * usual
    )
