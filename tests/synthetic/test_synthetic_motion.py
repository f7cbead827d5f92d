"""Motions and performances of the synthetic heads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.synthetic import EXPRESSION_NAMES, Motion, Performance
from personalive.synthetic.motion import project, rotation

ANGLE = st.floats(-90, 90)


def _track(seed: int, frames: int = 250, **options: float) -> tuple[np.ndarray, np.ndarray]:
    motions = [Performance.sample(seed, **options).at(frame) for frame in range(frames)]
    pose = [(m.yaw_deg, m.pitch_deg, m.roll_deg, m.scale, m.tx, m.ty) for m in motions]
    return np.array(pose), np.stack([m.expression for m in motions])


@given(ANGLE, ANGLE, ANGLE)
def test_rotation_is_right_handed_and_composed_as_the_motion_extractor_does(yaw, pitch, roll):
    R = rotation(yaw, pitch, roll)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.isclose(np.linalg.det(R), 1.0)
    y, x, z = np.deg2rad([yaw, pitch, roll])
    # image of a point straight ahead of the face (z = -1), written out by hand from R_z R_y R_x
    after_x = np.array([0.0, np.sin(x), -np.cos(x)])
    after_y = np.array([np.sin(y) * after_x[2], after_x[1], np.cos(y) * after_x[2]])
    c, s = np.cos(z), np.sin(z)
    expected = [c * after_y[0] - s * after_y[1], s * after_y[0] + c * after_y[1], after_y[2]]
    np.testing.assert_allclose(np.array([0.0, 0.0, -1.0]) @ R, expected, atol=1e-12)


def test_projection_scales_and_shifts_the_image_plane_only():
    motion = Motion(0.0, 0.0, 90.0, 2.0, 0.25, -0.5, Motion.neutral().expression)
    np.testing.assert_allclose(project(np.array([[1.0, 0.0, 3.0]]), motion), [[0.25, 1.5, 6.0]], atol=1e-12)


def test_expressions_are_named_once_and_reachable_by_name():
    assert len(set(EXPRESSION_NAMES)) == len(EXPRESSION_NAMES) >= 16
    motion = Motion.neutral(jawOpen=0.5)
    assert motion["jawOpen"] == 0.5
    assert np.count_nonzero(motion.expression) == 1


def test_mistakes_are_explained():
    with pytest.raises(InputError, match="jawopen"):
        Motion.neutral(jawopen=1.0)
    with pytest.raises(InputError, match="expected shape"):
        Motion(0, 0, 0, 1, 0, 0, np.zeros(3, np.float32))
    with pytest.raises(InputError, match="fps"):
        Performance.sample(0, fps=0.0)


def test_performance_is_random_access_and_depends_on_its_seed():
    one = Performance.sample(5)
    late = one.at(200).expression
    for frame in range(3):
        one.at(frame)
    assert np.array_equal(Performance.sample(5).at(200).expression, late)
    assert not np.array_equal(Performance.sample(6).at(200).expression, late)


def test_fps_only_resamples_time():
    slow, fast = Performance.sample(3, fps=25.0), Performance.sample(3, fps=50.0)
    for frame in (0, 7, 101):
        np.testing.assert_allclose(slow.at(frame).expression, fast.at(2 * frame).expression, atol=1e-6)
        assert slow.at(frame).yaw_deg == pytest.approx(fast.at(2 * frame).yaw_deg)


@pytest.mark.parametrize("seed", range(6))
def test_performances_are_smooth_and_in_range(seed):
    pose, expression = _track(seed)
    assert np.all(np.abs(pose[:, 0]) <= 40)
    assert np.all(np.abs(pose[:, 1:3]) <= 25)
    assert np.all(np.abs(pose[:, 3] - 1) <= 0.1)
    assert np.all(np.abs(pose[:, 4:]) <= 0.1)
    signed = np.array([name.startswith("eyeLook") for name in EXPRESSION_NAMES])
    assert expression.max() <= 1.0
    assert expression[:, ~signed].min() >= 0.0
    assert expression[:, signed].min() >= -1.0
    steps = np.abs(np.diff(pose, axis=0)).max(0)
    assert np.all(steps <= [4.0, 3.0, 2.0, 0.005, 0.006, 0.006])
    fast = np.array([name.startswith(("eyeBlink", "eyeLook", "jawOpen", "mouth")) for name in EXPRESSION_NAMES])
    assert np.abs(np.diff(expression, axis=0))[:, ~fast].max() <= 0.3
    assert np.abs(np.diff(expression, axis=0))[:, fast].max() <= 1.0


def test_performances_talk_pause_blink_and_turn():
    tracks = [_track(seed) for seed in range(6)]
    jaw = np.stack([e[:, EXPRESSION_NAMES.index("jawOpen")] for _, e in tracks])
    blink = np.stack([e[:, EXPRESSION_NAMES.index("eyeBlinkLeft")] for _, e in tracks])
    assert np.all(jaw.max(1) > 0.6)
    assert np.all((jaw < 0.02).mean(1) > 0.05)
    assert np.all(blink.max(1) > 0.95)
    assert np.all((blink < 0.1).mean(1) > 0.7)
    openings = ((jaw[:, 1:-1] > jaw[:, :-2]) & (jaw[:, 1:-1] >= jaw[:, 2:]) & (jaw[:, 1:-1] > 0.2)).sum(1)
    assert np.all(openings >= 8)  # syllables in ten seconds
    assert max(np.ptp(pose[:, 0]) for pose, _ in tracks) > 20


def test_no_intensity_is_a_still_neutral_face():
    pose, expression = _track(4, frames=40, intensity=0.0)
    assert np.all(expression == 0)
    assert np.all(pose[:, :3] == 0)
    assert np.all(np.ptp(pose, axis=0) == 0)
