"""Head poses: rotation, retargeting and the interpolated start, against their definitions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from personalive.vision.keypoints import (
    HeadPose,
    interpolate,
    interpolated_start,
    retarget,
    rotation_matrix,
    transform_keypoints,
)

degrees = st.floats(-180, 180, allow_nan=False)
seeds = st.integers(0, 2**31)
quick = settings(deadline=None, max_examples=50)


def random_pose(seed: int, count: int = 1) -> HeadPose:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return HeadPose(
        kp=draw(count, 21, 3),
        yaw=30 * draw(count),
        pitch=20 * draw(count),
        roll=20 * draw(count),
        t=draw(count, 3),
        scale=1 + 0.1 * draw(count, 1),
    )


def assert_same(first: HeadPose, second: HeadPose) -> None:
    for field in dataclasses.fields(HeadPose):
        torch.testing.assert_close(getattr(first, field.name), getattr(second, field.name), msg=field.name)


def elementary(axis: int, angle: float) -> Tensor:
    """Right-handed rotation of column vectors about one axis."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@quick
@given(pitch=degrees, yaw=degrees, roll=degrees)
def test_rotation_is_orthogonal_and_composed_in_the_stated_order(pitch: float, yaw: float, roll: float):
    angles = [torch.tensor([value], dtype=torch.float64) for value in (pitch, yaw, roll)]
    actual = rotation_matrix(*angles)[0]
    torch.testing.assert_close(actual @ actual.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.det(actual), torch.tensor(1.0, dtype=torch.float64))
    composed = elementary(2, roll) @ elementary(1, yaw) @ elementary(0, pitch)
    torch.testing.assert_close(actual, composed.T)


def test_roll_turns_x_towards_y():
    zero, right = torch.zeros(1), torch.tensor([90.0])
    turned = torch.tensor([[1.0, 0.0, 0.0]]) @ rotation_matrix(zero, zero, right)
    torch.testing.assert_close(turned[0], torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)


def test_transform_of_an_unturned_head_is_scale_and_shift():
    pose = random_pose(0, count=2)
    still = dataclasses.replace(pose, yaw=0 * pose.yaw, pitch=0 * pose.pitch, roll=0 * pose.roll)
    expected = pose.scale[:, :, None] * pose.kp
    expected[..., 0] += pose.t[:, None, 0]
    expected[..., 1] += pose.t[:, None, 1]  # and z is not shifted
    torch.testing.assert_close(transform_keypoints(still), expected)


def test_keypoints_are_differentiable_in_everything_but_the_ignored_depth():
    pose = random_pose(1)
    values = [getattr(pose, field.name).requires_grad_() for field in dataclasses.fields(HeadPose)]
    assert torch.autograd.gradcheck(lambda *parts: transform_keypoints(HeadPose(*parts)), values)


@quick
@given(seed=seeds, gain=st.floats(0, 2))
def test_retargeting_a_head_to_itself_changes_nothing(seed: int, gain: float):
    pose = random_pose(seed)
    assert_same(retarget(pose, pose, pose, gain=gain), pose)


@quick
@given(seed=seeds, gain=st.floats(0, 2), count=st.integers(1, 5))
def test_retargeting_takes_angles_and_a_share_of_the_shift(seed: int, gain: float, count: int):
    portrait, first, driving = random_pose(seed), random_pose(seed + 1), random_pose(seed + 2, count)
    result = retarget(portrait, driving, first, gain=gain)
    assert len(result) == count
    for row in range(count):
        assert torch.equal(result.kp[row], portrait.kp[0])
        assert torch.equal(result.scale[row], portrait.scale[0])
        moved = portrait.t[0] + gain * (driving.t[row] - first.t[0])
        torch.testing.assert_close(result.t[row], moved)
    for name in ("yaw", "pitch", "roll"):
        assert torch.equal(getattr(result, name), getattr(driving, name))


def test_interpolated_start_leaves_the_portrait_and_stops_before_the_driver():
    portrait, first = random_pose(2), random_pose(3)
    start = interpolated_start(portrait, first, 12)
    assert len(start) == 12
    assert_same(start[0], portrait)
    step = (first.yaw - portrait.yaw) / 12
    torch.testing.assert_close(start.yaw.diff(), step.expand(11))
    torch.testing.assert_close(start.yaw[-1:] + step, first.yaw)
    # the next pose is the driver's first as the portrait takes it
    torch.testing.assert_close(start[11].t, retarget(portrait, first, first, gain=0.5).t)
    assert torch.equal(start.scale, portrait.scale.expand(12, -1))


def test_interpolation_blends_all_but_the_keypoints():
    start, end = random_pose(4), random_pose(5)
    ends = interpolate(start, end, torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64))
    assert_same(ends[0], start)
    assert_same(ends[1], dataclasses.replace(end, kp=start.kp))
    torch.testing.assert_close(ends.t[2:], 0.75 * start.t + 0.25 * end.t)
    torch.testing.assert_close(ends.pitch[2:], 0.75 * start.pitch + 0.25 * end.pitch)


@pytest.mark.parametrize(
    ("index", "rows"),
    [(0, [0]), (-1, [4]), (slice(1, 3), [1, 2]), (torch.tensor([3, 0]), [3, 0])],
    ids=["first", "last", "slice", "tensor"],
)
def test_indexing_keeps_the_batch_axis(index, rows: list[int]):
    poses = random_pose(6, count=5)
    chosen = poses[index]
    assert len(chosen) == len(rows)
    assert torch.equal(chosen.kp, poses.kp[rows])
    assert torch.equal(chosen.scale, poses.scale[rows])


def test_indexing_out_of_range_is_an_error_so_that_loops_end():
    poses = random_pose(7, count=2)
    with pytest.raises(IndexError):
        poses[2]
    assert [len(pose) for pose in poses] == [1, 1]


def test_cat_undoes_slicing():
    poses = random_pose(8, count=5)
    assert_same(HeadPose.cat([poses[:2], poses[2], poses[3:]]), poses)


def test_detach_and_to():
    pose = random_pose(9)
    grown = dataclasses.replace(pose, yaw=pose.yaw.requires_grad_())
    assert not grown.detach().yaw.requires_grad
    assert grown.to(dtype=torch.float32).kp.dtype == torch.float32
    assert grown.to("meta").t.device.type == "meta"
    assert grown.to("meta").t.dtype == torch.float64
