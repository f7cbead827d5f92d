"""Images of the synthetic heads and their ground truth."""

import dataclasses

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.synthetic import (
    EXPRESSION_NAMES,
    HAIR_STYLES,
    IDENTITY_VECTOR_SIZE,
    KEYPOINT_NAMES,
    Identity,
    Motion,
    Performance,
    render,
)
from personalive.synthetic.model import head_model
from personalive.synthetic.motion import project
from personalive.synthetic.parts import EYE, HEAD
from personalive.synthetic.renderer import posed_vertices
from personalive.synthetic.template import HEAD_UNIT, template

SIZE = 128
PEOPLE = [Identity.sample(seed) for seed in (0, 1, 5, 8, 17)]
BOX_POINTS = [1, 2, 3, 4, 12, 15, 20]


def _pose(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, **expression: float) -> Motion:
    neutral = Motion.neutral(**expression)
    return dataclasses.replace(neutral, yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll)


def _to_pixels(keypoints: np.ndarray, size_px: int = SIZE) -> np.ndarray:
    return (keypoints[:, :2] * 0.5 + 0.5) * size_px


def _both(name: str, value: float) -> dict[str, float]:
    return {f"{name}Left": value, f"{name}Right": value}


def test_identity_vector_is_fixed_length_and_differs_between_people():
    vectors = np.stack([Identity.sample(seed).to_vector() for seed in range(40)])
    assert vectors.shape == (40, IDENTITY_VECTOR_SIZE)
    assert vectors.dtype == np.float32
    assert IDENTITY_VECTOR_SIZE >= 25
    assert np.abs(vectors).max() <= 3.0
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1) + 9 * np.eye(40)
    assert distances.min() > 0.5


def test_people_are_diverse():
    people = [Identity.sample(seed) for seed in range(300)]
    assert {person.hair_style for person in people} == set(HAIR_STYLES)
    assert len(HAIR_STYLES) >= 6
    assert 0.12 < np.mean([person.glasses for person in people]) < 0.28
    tones = [person.skin_tone for person in people]
    assert min(tones) < 0.1
    assert max(tones) > 0.9
    assert any(person.beard > 0 for person in people)
    assert not any(person.beard > 0 and person.hair_style in {"bob", "long", "wavy", "bun"} for person in people)


def test_rendering_is_deterministic_and_ignores_global_randomness():
    motion = Performance.sample(3).at(41)
    np.random.seed(0)
    first = render(Identity.sample(9), motion, SIZE)
    np.random.seed(1)
    head_model.cache_clear()
    second = render(Identity.sample(9), motion, SIZE)
    for field in ("image", "face_mask", "eyes_mask", "mouth_mask", "keypoints", "canonical_keypoints"):
        assert np.array_equal(getattr(first, field), getattr(second, field)), field
    assert not np.array_equal(first.image, render(Identity.sample(10), motion, SIZE).image)


def test_shapes_and_types():
    frame = render(PEOPLE[0], Motion.neutral(), 96)
    assert frame.image.shape == (96, 96, 3)
    assert frame.image.dtype == np.uint8
    assert frame.keypoints.shape == frame.canonical_keypoints.shape == (21, 3) == (len(KEYPOINT_NAMES), 3)
    assert frame.keypoints.dtype == np.float32
    assert all(mask.dtype == bool and mask.shape == (96, 96) for mask in (frame.face_mask, frame.eyes_mask))
    with pytest.raises(InputError, match="out of range"):
        render(PEOPLE[0], Motion.neutral(), 8)


@pytest.mark.parametrize("who", PEOPLE, ids=lambda who: str(who.seed))
def test_keypoints_lie_on_the_neutral_head_and_follow_the_formula(who):
    motion = dataclasses.replace(_pose(25, -12, 9), scale=0.93, tx=0.05, ty=-0.04)
    frame = render(who, motion, SIZE)
    by_hand = project(frame.canonical_keypoints, motion)
    np.testing.assert_allclose(frame.keypoints, by_hand, atol=1e-6)
    model = head_model(who)
    heads = np.unique(model.triangles[(model.kinds == HEAD) | (model.kinds == EYE)])
    surface = project(posed_vertices(who, Motion.neutral())[heads], motion)
    gap = np.linalg.norm(frame.keypoints[:, None] - surface[None], axis=-1).min(1)
    assert gap.max() < 0.025  # in image units: 1.6 pixels of 128


def test_canonical_keypoints_belong_to_the_person():
    talking = render(PEOPLE[1], Performance.sample(2).at(30), SIZE).canonical_keypoints
    assert np.array_equal(talking, render(PEOPLE[1], Motion.neutral(), SIZE).canonical_keypoints)
    assert not np.allclose(talking, render(PEOPLE[2], Motion.neutral(), SIZE).canonical_keypoints, atol=1e-3)
    names = {name: talking[i] for i, name in enumerate(KEYPOINT_NAMES)}
    assert names["eye_right"][0] < 0 < names["eye_left"][0]
    heights = [names[name][1] for name in ("crown", "brow_left", "eye_left", "nose_tip", "mouth_centre", "chin")]
    assert heights == sorted(heights)
    assert names["nose_tip"][2] == talking[:, 2].min()


@pytest.mark.parametrize("who", PEOPLE, ids=lambda who: str(who.seed))
@pytest.mark.parametrize("frame", [0, 60, 133])
def test_masks_are_visible_nested_and_inside_the_image(who, frame):
    out = render(who, Performance.sample(who.seed).at(frame), SIZE)
    assert out.face_mask.sum() > 0.05 * SIZE**2
    assert out.mouth_mask.sum() > 20
    border = np.ones((SIZE, SIZE), bool)
    border[2:-2, 2:-2] = False
    assert not (out.face_mask & border).any()
    assert not (out.eyes_mask & ~out.face_mask).any()
    assert not (out.mouth_mask & ~out.face_mask).any()
    assert not (out.eyes_mask & out.mouth_mask).any()


@pytest.mark.parametrize("who", PEOPLE, ids=lambda who: str(who.seed))
def test_opening_the_jaw_uncovers_a_dark_mouth_with_teeth(who):
    closed, opened = (render(who, Motion.neutral(jawOpen=value), SIZE) for value in (0.0, 0.8))
    assert opened.mouth_mask.sum() > 1.5 * closed.mouth_mask.sum()
    light = opened.image[opened.mouth_mask].astype(int).min(-1)
    assert (light < 60).sum() > 20
    assert (light > 130).sum() > 8


@pytest.mark.parametrize("who", PEOPLE, ids=lambda who: str(who.seed))
def test_blinking_closes_the_eyes_and_gaze_moves_the_iris(who):
    open_eyes = render(who, Motion.neutral(), SIZE)
    assert open_eyes.eyes_mask.sum() > 60
    assert render(who, Motion.neutral(**_both("eyeBlink", 1.0)), SIZE).eyes_mask.sum() <= 3
    half = render(who, Motion.neutral(**_both("eyeBlink", 0.5)), SIZE).eyes_mask.sum()
    assert 0.2 < half / open_eyes.eyes_mask.sum() < 0.85

    def dark_centre(value: float) -> float:
        out = render(who, Motion.neutral(eyeLookX=value), 256)
        columns = np.arange(256) > 128
        dark = np.where(out.eyes_mask & columns, 255.0 - out.image.min(-1), 0.0) ** 2
        return float((dark.sum(0) * np.arange(256)).sum() / dark.sum())

    assert dark_centre(1.0) > dark_centre(0.0) + 1 > dark_centre(-1.0) + 2


def test_the_pose_moves_the_nose_as_the_angles_say():
    nose = KEYPOINT_NAMES.index("nose_tip")
    at = {angle: render(PEOPLE[0], _pose(**{angle: 25.0}), SIZE).keypoints[nose] for angle in ("yaw", "pitch")}
    rest = render(PEOPLE[0], Motion.neutral(), SIZE).keypoints[nose]
    assert at["yaw"][0] < rest[0] - 0.1  # right-handed with y down: + yaw turns to image left
    assert at["pitch"][1] > rest[1] + 0.1  # + pitch nods down
    chin = KEYPOINT_NAMES.index("chin")
    assert render(PEOPLE[0], _pose(roll=25.0), SIZE).keypoints[chin, 0] < -0.1


@pytest.mark.parametrize("yaw", [-35.0, 0.0, 35.0])
def test_drawn_eyes_and_mouth_are_where_the_keypoints_are(yaw):
    out = render(PEOPLE[0], _pose(yaw), SIZE)
    pixels = _to_pixels(out.keypoints)
    rows, columns = np.nonzero(out.mouth_mask)
    assert abs(rows.mean() - pixels[15, 1]) < 3
    assert abs(columns.mean() - pixels[15, 0]) < 6
    for eye in (1, 2):
        x, y = pixels[eye].astype(int)
        assert out.eyes_mask[y - 1 : y + 2, x - 1 : x + 2].all()


@pytest.mark.parametrize("who", PEOPLE, ids=lambda who: str(who.seed))
def test_the_face_box_frames_eyes_and_open_mouth(who):
    out = render(who, Motion.neutral(jawOpen=0.9), SIZE)
    points = _to_pixels(out.keypoints)[BOX_POINTS]
    centre = points.mean(0)
    side = 2 * 1.7 * (centre[1] - points[:, 1].min())
    low, high = centre - 0.95 * side / 2, centre + 1.05 * side / 2
    rows, columns = np.nonzero(out.mouth_mask | out.eyes_mask)
    margin = 0.08 * side
    assert low[0] + margin < columns.min()
    assert columns.max() < high[0] - margin
    assert low[1] + margin < rows.min()
    assert rows.max() < high[1] - margin
    assert 0.4 * SIZE < side < 0.75 * SIZE


def test_every_expression_changes_the_image():
    neutral = render(PEOPLE[0], Motion.neutral(), SIZE).image.astype(int)
    for name in EXPRESSION_NAMES:
        changed = np.abs(render(PEOPLE[0], Motion.neutral(**{name: 1.0}), SIZE).image.astype(int) - neutral)
        assert (changed.max(-1) > 12).sum() > 5, name


def test_every_identity_shape_moves_the_mesh():
    plain = head_model(Identity(seed=0, hair_style="bald")).neutral
    for name in ("head_width", "jaw_width", "nose_projection", "eye_spacing", "mouth_width", "ear_flare"):
        moved = head_model(Identity(seed=0, hair_style="bald", **{name: 1.0})).neutral
        assert np.abs(moved - plain).max() > 0.01, name


def test_the_template_is_symmetric_and_its_slits_are_closed():
    t = template()
    mirrored = {tuple(np.round(p * [-1, 1, 1], 6) + 0.0) for p in t.rest}
    assert {tuple(np.round(p, 6) + 0.0) for p in t.rest} == mirrored
    assert np.array_equal(t.rest[t.weld[:, 0]], t.rest[t.weld[:, 1]])
    assert 0.9 < HEAD_UNIT * np.ptp(t.rest[t.rest[:, 1] < 1.0][:, 1]) < 1.2


def test_the_background_stands_still_and_the_same_performance_fits_anyone():
    performance = Performance.sample(11)
    frames = [render(PEOPLE[2], performance.at(frame), SIZE).image for frame in (0, 25, 50)]
    assert all(np.array_equal(frames[0][:6], frame[:6]) for frame in frames)
    one, other = (render(who, performance.at(25), SIZE) for who in PEOPLE[:2])
    assert one.motion.yaw_deg == other.motion.yaw_deg
    assert not np.array_equal(one.canonical_keypoints, other.canonical_keypoints)
