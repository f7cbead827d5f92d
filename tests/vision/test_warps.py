"""A head moved by geometry alone, against rendered heads whose true images are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.synthetic import Identity, Motion, render
from personalive.vision.keypoints import HeadPose, transform_keypoints
from personalive.vision.warps import move_head, moving_field

SIDE_PX = 128
SEEN = (3, 4, 12, 15)  # brows, nose tip and mouth of the 21 keypoints: on the skin and in view


def head(person: int, motion: Motion) -> tuple[torch.Tensor, HeadPose]:
    """(1, 3, S, S) in [0, 1] and the true pose."""
    shown = render(Identity.sample(person), motion, SIDE_PX)
    pose = HeadPose(
        kp=torch.from_numpy(shown.canonical_keypoints)[None],
        yaw=torch.tensor([motion.yaw_deg]),
        pitch=torch.tensor([motion.pitch_deg]),
        roll=torch.tensor([motion.roll_deg]),
        t=torch.tensor([[motion.tx, motion.ty, 0.0]]),
        scale=torch.tensor([[motion.scale]]),
    )
    return torch.from_numpy(shown.image).permute(2, 0, 1)[None].float() / 255, pose


STILL = Motion.neutral()
WAYS = {
    "yaw": {"yaw_deg": 18.0},
    "yaw and pitch": {"yaw_deg": -15.0, "pitch_deg": 8.0},
    "pitch": {"pitch_deg": -12.0},
    "roll": {"roll_deg": 14.0},
    "shift": {"tx": 0.1, "ty": -0.06},
    "size": {"scale": 1.12},
}
MOTIONS = [dataclasses.replace(STILL, **way) for way in WAYS.values()]


def test_nothing_moves_where_the_pose_stays():
    image, pose = head(3, MOTIONS[1])
    torch.testing.assert_close(move_head(image, pose, pose), image, atol=2e-3, rtol=0)


@pytest.mark.parametrize("motion", MOTIONS, ids=WAYS.keys())
def test_it_comes_closer_to_the_true_image_than_the_portrait(motion: Motion):
    moved, copied = [], []
    for person in (11, 12, 13):
        portrait, held = head(person, STILL)
        truth, wanted = head(person, motion)
        moved.append((move_head(portrait, held, wanted) - truth).abs().mean().item())
        copied.append((portrait - truth).abs().mean().item())
    assert np.mean(moved) < 0.75 * np.mean(copied)


@pytest.mark.parametrize("motion", MOTIONS, ids=WAYS.keys())
def test_keypoints_on_the_skin_are_fetched_from_where_they_are(motion: Motion):
    _, held = head(5, STILL)
    _, wanted = head(5, motion)
    field = moving_field(held, wanted, SIDE_PX)[0]
    there, here = transform_keypoints(wanted)[0, SEEN, :2], transform_keypoints(held)[0, SEEN, :2]
    pixels = ((there * 0.5 + 0.5) * SIDE_PX).long()
    found = field[pixels[:, 1], pixels[:, 0]]
    off_px = torch.linalg.vector_norm(found - here, dim=1) * SIDE_PX / 2
    shift_px = torch.linalg.vector_norm(there - here, dim=1) * SIDE_PX / 2
    assert (off_px < 1 + 0.4 * shift_px).all()  # the nose sticks out of an ellipsoid: it is fetched worst
    assert off_px[:2].max() < 1.5


def test_a_shift_moves_the_head_whole_and_leaves_the_background():
    _, held = head(7, STILL)
    wanted = dataclasses.replace(held, t=held.t + torch.tensor([[0.125, 0.0, 0.0]]))
    field, still = moving_field(held, wanted, SIDE_PX)[0], moving_field(held, held, SIDE_PX)[0]
    shift = field - still
    nose = ((transform_keypoints(wanted)[0, 12, :2] * 0.5 + 0.5) * SIDE_PX).long()
    torch.testing.assert_close(shift[nose[1], nose[0]], torch.tensor([-0.125, 0.0]), atol=1e-4, rtol=0)
    assert shift[:6].abs().max() < 1e-3
    assert shift[SIDE_PX // 3, :3].abs().max() < 1e-3


finite = st.floats(-3, 3, allow_nan=False)


@settings(deadline=None, max_examples=40)
@given(yaw=st.floats(-180, 180), pitch=st.floats(-180, 180), x=finite, y=finite, scale=st.floats(0.05, 5))
def test_any_pose_gives_numbers(yaw: float, pitch: float, x: float, y: float, scale: float):
    _, held = head(1, STILL)
    wanted = HeadPose(
        kp=held.kp,
        yaw=torch.tensor([yaw]),
        pitch=torch.tensor([pitch]),
        roll=held.roll,
        t=torch.tensor([[x, y, 0.0]]),
        scale=torch.tensor([[scale]]),
    )
    for one, other in ((held, wanted), (wanted, held)):
        field = moving_field(one, other, 32)
        assert field.shape == (1, 32, 32, 2)
        assert field.isfinite().all()


def test_several_images_are_moved_each_its_own_way():
    images, poses = zip(*(head(n, motion) for n, motion in enumerate(MOTIONS[:3])), strict=True)
    wanted = [poses[i - 1] for i in range(3)]
    wanted = [dataclasses.replace(held, yaw=w.yaw, pitch=w.pitch) for held, w in zip(poses, wanted, strict=True)]
    together = move_head(torch.cat(images), HeadPose.cat(poses), HeadPose.cat(wanted))
    alone = [move_head(p, h, w) for p, h, w in zip(images, poses, wanted, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_half_precision_images_keep_their_kind_and_place():
    image, held = head(2, STILL)
    _, wanted = head(2, MOTIONS[1])
    moved = move_head(image.bfloat16(), held, wanted)
    assert moved.dtype is torch.bfloat16
    torch.testing.assert_close(moved.float(), move_head(image, held, wanted), atol=0.01, rtol=0)


def test_autocast_does_not_move_the_field():
    (_, held), (_, wanted) = head(3, STILL), head(3, MOTIONS[1])
    with torch.autocast("cpu", torch.bfloat16):
        found = moving_field(held, wanted, SIDE_PX)
    assert torch.equal(found, moving_field(held, wanted, SIDE_PX))
