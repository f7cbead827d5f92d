"""Batches: packed poses, flows, and images of the wrong size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from personalive.errors import InputError
from personalive.training.batch import check_sample, missing_flows, pack_poses, signed, unpack_poses
from personalive.vision.keypoints import HeadPose
from personalive.vision.warps import add_flow, places, sample

SIDE_PX, LATENT = 128, 16


@pytest.mark.parametrize("shape", [(64, 64, 3), (40, 32, 32, 3)])
def test_images_of_another_size_name_both(shape: tuple[int, ...]):
    check_sample(np.zeros(shape, np.uint8), shape[-2])
    with pytest.raises(InputError, match="48 x 48"):
        check_sample(np.zeros(shape, np.uint8), 48)


def test_a_packed_pose_is_the_same_pose():
    draw = torch.Generator().manual_seed(0)
    shapes = {"kp": (3, 21, 3), "yaw": (3,), "pitch": (3,), "roll": (3,), "t": (3, 3), "scale": (3, 1)}
    pose = HeadPose(**{name: torch.randn(shape, generator=draw) for name, shape in shapes.items()})
    found = unpack_poses(pack_poses(pose))
    for field in dataclasses.fields(HeadPose):
        assert torch.equal(getattr(found, field.name), getattr(pose, field.name)), field.name


@pytest.mark.parametrize("shift_px", [(3, -2), (-4, 0), (0, 5)])
def test_the_missing_flow_points_to_the_content_in_the_moved_image(shift_px: tuple[int, int]):
    x, y = shift_px
    low = torch.rand(1, 3, SIDE_PX // 8, SIDE_PX // 8, generator=torch.Generator().manual_seed(2))
    fine = F.interpolate(low, size=(SIDE_PX, SIDE_PX), mode="bicubic", align_corners=False).clamp(0, 1)
    moved = signed((255 * fine).round().byte())
    frame = moved.roll((-y, -x), dims=(2, 3))  # its content at a place is x to the right and y down in moved
    flow = missing_flows(frame, moved, LATENT)
    assert flow.shape == (1, 2, LATENT, LATENT)
    middle = flow[0, :, 4:-4, 4:-4] * SIDE_PX / 2
    expected = torch.tensor([x, y]).float()[:, None, None].expand_as(middle)
    torch.testing.assert_close(middle, expected, atol=0.25, rtol=0)
    field = add_flow(places(SIDE_PX, flow.device), flow)
    missed, unmoved = ((image - frame)[..., 32:-32, 32:-32].abs().mean() for image in (sample(moved, field), moved))
    assert missed < 0.15 * unmoved
