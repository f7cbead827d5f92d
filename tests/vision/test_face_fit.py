"""Fitting: faces that the model can make come back, pins lie on their landmarks, lids shut, poses are found."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.vision.face_fit import fit_face, fit_pose
from personalive.vision.face_model import face_model
from support.synthetic_face import synthetic_face


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("yaw_deg", [0.0, 15.0])
def test_pins_lie_on_their_landmarks(columns: int, yaw_deg: float):
    face = synthetic_face(3, yaw_deg=yaw_deg, jawOpen=0.3)
    fit = fit_face(face.landmarks_px[:, :columns])
    model = face_model()
    off = fit.pose.place(fit.shape[model.pins])[:, :2] - model.pin_places(face.landmarks_px)[:, :2]
    rims = np.isin(model.pins, np.concatenate(list(model.rims.values())))
    assert np.linalg.norm(off[rims], axis=1).max() < 0.15
    assert fit.error_px < 0.02 * np.ptp(face.landmarks_px[:, 1])


def test_the_pose_comes_back():
    face = synthetic_face(1, yaw_deg=12.0)
    fit = fit_face(face.landmarks_px)
    angle = np.degrees(np.arccos(np.clip((np.trace(fit.pose.rotation @ face.pose.rotation.T) - 1) / 2, -1, 1)))
    assert angle < 4
    assert fit.pose.scale_px == pytest.approx(face.pose.scale_px, rel=0.08)


def test_the_pose_of_another_frame_is_found_whatever_the_mouth_does():
    fit = fit_face(synthetic_face(2).landmarks_px)
    start = fit_pose(synthetic_face(2).landmarks_px, fit)
    moved = fit_pose(synthetic_face(2, yaw_deg=10.0, jawOpen=0.6).landmarks_px, fit)
    turned = moved.rotation @ start.rotation.T
    assert np.degrees(np.arcsin(turned[0, 2])) == pytest.approx(10.0, abs=1.5)
    still = fit_pose(synthetic_face(2, jawOpen=0.6).landmarks_px, fit)
    assert np.abs(still.rotation - start.rotation).max() < 0.03


@pytest.mark.parametrize("side", [0, 1])
def test_closing_brings_the_lids_together_on_this_face(side: int):
    fit, model = fit_face(synthetic_face(5).landmarks_px), face_model()
    name = ("right", "left")[side]
    upper, lower = model.rims[f"lid_upper_{name}"], model.rims[f"lid_lower_{name}"]
    shut = fit.shape + fit.closing[side]
    middle = slice(len(upper) // 4, 3 * len(upper) // 4)
    order = np.argsort(shut[lower, 0])
    line = np.interp(shut[upper[middle], 0], shut[lower[order], 0], shut[lower[order], 1])
    opening = fit.shape[upper, 1].max() - fit.shape[lower, 1].min()
    gap = shut[upper[middle], 1] - line
    assert gap.max() <= 1e-5  # nothing of the eye shows
    assert gap.min() > -0.15 * opening
    other = model.rims[f"lid_upper_{('left', 'right')[side]}"]
    assert np.abs(fit.closing[side][other]).max() < 0.1


def test_landmarks_that_cannot_be_are_refused():
    good = synthetic_face(0).landmarks_px
    for bad, says in (
        (good[:68], "give \\(478, 2\\)"),
        (good[:, :1], "give \\(478, 2\\)"),
        (np.full_like(good, np.nan), "is there a face"),
        (np.ones_like(good), "is there a face"),
    ):
        with pytest.raises(InputError, match=says):
            fit_face(bad)


def test_lips_that_nearly_meet_are_fitted_shut_and_open_ones_open():
    model = face_model()
    upper, lower = (model.rims[f"lip_inner_{row}_right"][-1] for row in ("upper", "lower"))
    for jaw, low, high in ((0.0, -0.02, 0.06), (0.5, 0.8, 3.0)):
        face = synthetic_face(0, jawOpen=jaw)
        face.landmarks_px[13, 1] -= 0.3
        fit = fit_face(face.landmarks_px)
        assert low < fit.shape[upper, 1] - fit.shape[lower, 1] < high
