"""Controls: the defaults change nothing, each does what it says on the conditioning, bad values are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from personalive.engine.controls import Controls
from personalive.engine.engine import Engine
from personalive.engine.state import Motion, StreamState
from personalive.errors import InputError
from personalive.vision.keypoints import HeadPose

MakeImages = Callable[[int, int], np.ndarray]
CHUNK = 4


@pytest.fixture(scope="module")
def stream(engine: Engine, make_images: MakeImages) -> tuple[StreamState, Motion]:
    """A stream after its first window, and the motion of the second."""
    frames = make_images(9, 7)
    state, _ = engine.step(engine.start(frames[0]), frames[1:5])
    return state, engine.encode_motion(frames[5:])


def followed(engine: Engine, stream: tuple[StreamState, Motion], **controls):
    with torch.no_grad():
        return engine.conditioner.condition(*stream, None, Controls(**controls))


def assert_close(one: HeadPose, other: HeadPose) -> None:
    for field in dataclasses.fields(HeadPose):
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name))


def test_motion_drives_as_its_frames_do(engine: Engine, make_images: MakeImages):
    frames = make_images(5, 3)
    state = engine.start(frames[0])
    by_frames, shown = engine.step(state, frames[1:])
    by_motion, again = engine.step(state, engine.encode_motion(frames[1:]), controls=Controls())
    assert torch.equal(shown, again)
    assert torch.equal(by_frames.latents, by_motion.latents)


def test_no_expression_is_the_portraits_own_and_half_lies_between(engine: Engine, stream):
    state, motion = stream
    own = state.reference.motion.expand_as(motion.tokens)
    torch.testing.assert_close(followed(engine, stream, expression=0.0).motion, own)
    torch.testing.assert_close(followed(engine, stream, expression=0.5).motion, (own + motion.tokens) / 2)
    torch.testing.assert_close(followed(engine, stream, expression=2.0).motion, 2 * motion.tokens - own)
    assert (motion.tokens - own).abs().max() > 0.01


def test_no_head_motion_is_the_portraits_own_pose(engine: Engine, stream):
    state, _ = stream
    assert_close(followed(engine, stream, head_motion=0.0).poses, HeadPose.cat([state.reference.pose] * CHUNK))


def test_more_head_motion_turns_and_shifts_in_proportion(engine: Engine, stream):
    state, motion = stream
    plain, double = followed(engine, stream).poses, followed(engine, stream, head_motion=2.0).poses
    portrait = state.reference.pose
    assert torch.equal(plain.yaw, motion.poses.yaw)
    torch.testing.assert_close(double.yaw - portrait.yaw, 2 * (plain.yaw - portrait.yaw))
    torch.testing.assert_close(double.t - portrait.t, 2 * (plain.t - portrait.t))
    torch.testing.assert_close(double.scale / portrait.scale, (plain.scale / portrait.scale) ** 2)


def test_relative_pose_adds_the_way_since_the_neutral_frame(engine: Engine, stream):
    state, motion = stream
    assert state.driver is not None
    relative = followed(engine, stream, pose="relative").poses
    for angle in ("yaw", "pitch", "roll"):
        way = getattr(motion.poses, angle) - getattr(state.driver, angle)
        torch.testing.assert_close(getattr(relative, angle), getattr(state.reference.pose, angle) + way)
    assert (relative.yaw - motion.poses.yaw).abs().max() > 0.01


def test_the_first_relative_frame_is_the_portraits_own_pose(engine: Engine, make_images: MakeImages):
    frames = make_images(5, 7)
    state = engine.start(frames[0])
    poses = followed(engine, (state, engine.encode_motion(frames[1:])), pose="relative").poses
    own = HeadPose.cat([state.reference.pose] * (engine.warmup_frames + 1))
    assert_close(poses[: engine.warmup_frames + 1], own)


def test_smoothing_keeps_a_share_of_the_frame_before(engine: Engine, stream):
    state, motion = stream
    smooth, plain = followed(engine, stream, smoothing=0.6), followed(engine, stream)
    before, yaw_before = state.motion[:, -1], state.poses[-1].yaw
    for frame in range(CHUNK):
        before = 0.6 * before + 0.4 * motion.tokens[:, frame]
        yaw_before = 0.6 * yaw_before + 0.4 * plain.poses[frame].yaw
        torch.testing.assert_close(smooth.motion[:, frame], before)
        torch.testing.assert_close(smooth.poses[frame].yaw, yaw_before)


def test_frames_between_two_are_blends_of_them(stream):
    _, motion = stream
    low, high = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3])
    between = motion.between(low, high, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(between.tokens[:, 1], 0.75 * motion.tokens[:, 1] + 0.25 * motion.tokens[:, 2])
    torch.testing.assert_close(between.poses.yaw[[0, 2]], motion.poses.yaw[[0, 3]])
    assert len(Motion.cat([motion, between])) == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expression", 2.5),
        ("expression", float("nan")),
        ("expression", True),
        ("head_motion", -0.1),
        ("head_motion", "1"),
        ("smoothing", 1.0),
        ("pose", "free"),
    ],
)
def test_values_outside_their_range_are_refused_by_name(name: str, value):
    with pytest.raises(InputError, match=f"^{name} .*: give "):
        Controls(**{name: value})


def test_motion_of_another_model_is_refused(engine: Engine, stream):
    state, motion = stream
    foreign = Motion(motion.tokens[..., :-1], motion.poses)
    with pytest.raises(InputError, match="of its own or its kind"):
        engine.step(state, foreign)
    with pytest.raises(InputError, match="this model needs"):
        engine.step(state, motion[:2])
