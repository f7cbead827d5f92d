"""Heads made from photographs: the ground truth of the synthetic ones, sets on disk, seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalive.errors import InputError
from personalive.synthetic import EXPRESSION_NAMES, KEYPOINT_NAMES, Motion, Performance, PhotoHead, PhotoHeads
from personalive.synthetic.photo_head import MODEL_UNIT, ORIGIN
from personalive.synthetic.photo_heads import RecordedPerformance, Track
from personalive.training.data.prepare.heads import framed, make_heads
from personalive.vision.face_model import face_model
from support.synthetic_face import synthetic_face, turn

SIZE = 128


def photograph(size_px: int = 200) -> np.ndarray:
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    return (255 * np.stack([x, y, 0.5 + 0 * x], -1)).astype(np.uint8)


@pytest.fixture(scope="module")
def head() -> PhotoHead:
    image, points, _ = framed(photograph(), synthetic_face(4, 200).landmarks_px, None)
    return PhotoHead.of(image, points)


def moved(yaw: float = 0.0, tx: float = 0.0, **expression: float) -> Motion:
    return dataclasses.replace(Motion.neutral(**expression), yaw_deg=yaw, tx=tx)


def pixels(keypoints: np.ndarray) -> np.ndarray:
    return (keypoints[:, :2] * 0.5 + 0.5) * SIZE


def test_the_ground_truth_is_that_of_a_synthetic_head(head: PhotoHead):
    frame = head.render(moved(10.0, eyeBlinkLeft=0.2), SIZE)
    assert frame.image.shape == (SIZE, SIZE, 3)
    assert frame.image.dtype == np.uint8
    assert frame.keypoints.shape == frame.canonical_keypoints.shape == (21, 3)
    for mask in (frame.face_mask, frame.eyes_mask, frame.mouth_mask):
        assert mask.shape == (SIZE, SIZE)
        assert mask.dtype == bool
        assert mask.any()
    assert (frame.face_mask[frame.eyes_mask]).all()
    assert frame.motion["eyeBlinkLeft"] == pytest.approx(0.2)


def test_keypoints_lie_where_a_synthetic_heads_do(head: PhotoHead):
    at = dict(zip(KEYPOINT_NAMES, head.canonical_keypoints, strict=True))
    assert at["eye_right"][0] < -0.1 < 0.1 < at["eye_left"][0]  # the person's right lies left
    assert abs(at["eye_left"][1]) < 0.08
    assert at["crown"][1] < -0.4
    assert 0.4 < at["chin"][1] < 0.7
    assert at["nose_tip"][2] == min(k[2] for k in at.values())  # towards the viewer is negative
    assert at["mouth_corner_right"][0] < at["mouth_centre"][0] < at["mouth_corner_left"][0]


@pytest.mark.parametrize(("yaw", "tx"), [(0.0, 0.0), (15.0, 0.0), (-15.0, 0.1)])
def test_masks_lie_under_the_keypoints(head: PhotoHead, yaw: float, tx: float):
    frame = head.render(moved(yaw, tx), SIZE)
    eyes = pixels(frame.keypoints[[1, 2]])
    rows, columns = np.nonzero(frame.eyes_mask)
    middle = eyes.mean(0)
    assert np.hypot(columns.mean() - middle[0], rows.mean() - middle[1]) < 4
    rows, columns = np.nonzero(frame.mouth_mask)
    mouth = pixels(frame.keypoints[[13, 14, 15]]).mean(0)
    assert np.hypot(columns.mean() - mouth[0], rows.mean() - mouth[1]) < 6


def test_turning_right_is_turning_right(head: PhotoHead):
    left, right = (pixels(head.render(moved(yaw), SIZE).keypoints)[12, 0] for yaw in (-15.0, 15.0))
    found = [np.nonzero(head.render(moved(yaw), SIZE).mouth_mask)[1].mean() for yaw in (-15.0, 15.0)]
    assert np.sign(right - left) == np.sign(found[1] - found[0])


def test_expressions_do_what_their_values_say(head: PhotoHead):
    rest, shut, wide = (head.render(m, 2 * SIZE) for m in (moved(), moved(eyeBlinkLeft=1.0), moved(jawOpen=0.8)))
    right, left = rest.eyes_mask[:, :SIZE].sum(), rest.eyes_mask[:, SIZE:].sum()
    assert shut.eyes_mask[:, SIZE:].sum() < 0.1 * left
    assert shut.eyes_mask[:, :SIZE].sum() > 0.9 * right
    assert wide.mouth_mask.sum() > 1.5 * rest.mouth_mask.sum()
    np.testing.assert_array_equal(wide.keypoints, rest.keypoints)  # implicit keypoints know no expression


def test_recorded_tracks_become_motions():
    poses = np.tile(np.eye(4), (10, 1, 1))
    poses[:, :3, :3] = np.stack([turn(yaw) for yaw in np.linspace(-10, 10, 10)])
    values = np.zeros((10, 3))
    values[5] = 0.7, 0.5, 0.6
    track = Track.of(values, ["jawOpen", "eyeBlinkLeft", "mouthPressLeft"], poses, np.arange(10) / 50)
    assert track.fps == pytest.approx(50)
    assert np.ptp(track.angles_deg[:, 0]) == pytest.approx(20, abs=0.5)
    row = dict(zip(EXPRESSION_NAMES, track.values[5], strict=True))
    assert row["jawOpen"] > 0.6
    assert row["eyeBlinkLeft"] == pytest.approx(0.5 / 0.62, abs=0.01)
    assert row["mouthPress"] == pytest.approx(0.3, abs=0.01)
    performance = RecordedPerformance(track, seed=3)
    motions = [performance.at(frame) for frame in range(-5, 40)]
    assert max(abs(m.yaw_deg) for m in motions) <= 10.5
    assert performance.at(7).expression.tolist() == RecordedPerformance(track, seed=3).at(7).expression.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two heads with a track; a third photograph has an open mouth, a fourth no landmarks."""
    place = tmp_path_factory.mktemp("photos")
    (place / "in").mkdir()
    faces = [synthetic_face(4, 200), synthetic_face(5, 200), synthetic_face(6, 200, jawOpen=0.8)]
    for name in "abcd":
        Image.fromarray(photograph()).save(place / "in" / f"{name}.png")
    np.savez(
        place / "landmarks.npz",
        names=np.array(["a.png", "b.png", "c.png"]),
        landmarks_px=np.stack([face.landmarks_px for face in faces]),
    )
    clip = {"x.blendshapes": np.zeros((5, 1)), "x.pose": np.tile(np.eye(4), (5, 1, 1)), "x.time_s": np.arange(5) / 25}
    np.savez(place / "tracks.npz", blendshape_names=np.array(["jawOpen"]), **clip)
    report = make_heads(place / "in", place / "set", place / "landmarks.npz", place / "tracks.npz")
    assert (report.heads, report.tracks) == (2, 1)
    assert report.dropped == {"with open mouth": 1, "without landmarks": 1}
    return place


def test_a_set_depends_on_seeds_alone(folder: Path):
    one, other = PhotoHeads(folder / "set"), PhotoHeads(folder / "set")
    assert len(one) == 2
    assert one.names == ("a.png", "b.png")
    motion = one.performance(7).at(12)
    frames = [heads.sample(7).render(heads.performance(7).at(12), 64).image for heads in (one, other)]
    np.testing.assert_array_equal(*frames)
    assert {type(one.performance(seed)) for seed in range(12)} == {Performance, RecordedPerformance}
    people = [one.head(k).render(motion, 64) for k in range(2)]
    assert (people[0].canonical_keypoints != people[1].canonical_keypoints).any()
    assert people[0].motion is people[1].motion  # the same performance by someone else


def test_framing_puts_the_head_where_a_drawn_one_is(folder: Path):
    portrait = PhotoHeads(folder / "set").head(0).portrait
    centre = portrait.fit.pose.place(ORIGIN[None].astype(np.float32))[0, :2]
    side = portrait.image.shape[0]
    np.testing.assert_allclose(centre, side / 2, atol=0.02 * side)
    assert portrait.fit.pose.scale_px == pytest.approx(MODEL_UNIT * side / 2, rel=0.02)
    # a place of the photograph keeps its colour: the pattern says where it came from
    nose = face_model().pins[np.flatnonzero((face_model().pin_landmarks == 1).all(1))[0]]
    x, y = portrait.fit.pose.place(portrait.fit.shape[nose : nose + 1])[0, :2].astype(int)
    was = synthetic_face(4, 200).landmarks_px[1, :2] / 200 * 255
    np.testing.assert_allclose(portrait.image[y, x, :2], was, atol=4)


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path, folder: Path):
    with pytest.raises(InputError, match="personalive data heads"):
        PhotoHeads(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        make_heads(tmp_path / "gone", tmp_path / "set", None)
