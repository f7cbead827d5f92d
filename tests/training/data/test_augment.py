"""Images that are turned, zoomed, panned and mirrored together with their true poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from personalive.synthetic import KEYPOINT_NAMES, Identity, Performance, render
from personalive.training.data import augment
from personalive.training.data.augment import vary_view
from personalive.vision.keypoints import HeadPose, transform_keypoints

SIDE_PX, COUNT = 96, 16
DRAWN = [KEYPOINT_NAMES.index(name) for name in ("brow_right", "brow_left", "nose_tip", "chin")]


@pytest.fixture(scope="module")
def heads() -> tuple[torch.Tensor, HeadPose]:
    motions = [Performance.sample(n).at(40) for n in range(COUNT)]
    shown = [render(Identity.sample(n), motion, SIDE_PX) for n, motion in enumerate(motions)]
    images = torch.from_numpy(np.stack([one.image for one in shown])).permute(0, 3, 1, 2).float() / 255
    values = torch.tensor([[m.yaw_deg, m.pitch_deg, m.roll_deg, m.scale, m.tx, m.ty, 0.0] for m in motions])
    pose = HeadPose(
        kp=torch.from_numpy(np.stack([one.canonical_keypoints for one in shown])),
        yaw=values[:, 0],
        pitch=values[:, 1],
        roll=values[:, 2],
        t=values[:, 4:7],
        scale=values[:, 3:4],
    )
    return images, pose


def marked(pose: HeadPose, side_px: int) -> torch.Tensor:
    """(B, 3, S, S) black images with a soft dot at some keypoints, one shade each."""
    line = (torch.arange(side_px) + 0.5) / side_px * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    at = transform_keypoints(pose)[:, DRAWN, :2]
    off = (x - at[..., :1, None]).square() + (y - at[..., 1:, None]).square()
    return (torch.exp(-off / (2 * 0.03**2)).sum(dim=1, keepdim=True)).expand(-1, 3, -1, -1)


def test_dots_at_the_keypoints_go_where_the_new_pose_puts_them(heads, monkeypatch: pytest.MonkeyPatch):
    """Mirroring swaps names of left and right, which dots do not have: all are drawn alike."""
    _, pose = heads
    images, moved = vary_view(marked(pose, SIDE_PX), pose, np.random.default_rng(3))
    wanted = marked(moved, SIDE_PX)
    # zooming changes the size of the dots, not where their middle is
    overlap = (images * wanted).sum((1, 2, 3)) / (
        images.square().sum((1, 2, 3)) * wanted.square().sum((1, 2, 3))
    ).sqrt()
    assert overlap.min() > 0.97
    assert (transform_keypoints(moved) - transform_keypoints(pose)).abs().amax((1, 2)).min() > 0.02


def test_mirrored_heads_are_heads_seen_in_a_mirror(heads, monkeypatch: pytest.MonkeyPatch):
    for name in ("TURN_DEG", "ZOOM", "PAN"):
        monkeypatch.setattr(augment, name, 0.0)
    images, pose = heads
    changed, moved = vary_view(images, pose, np.random.default_rng(0))
    before, after = transform_keypoints(pose), transform_keypoints(moved)
    flipped = (changed - images.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    kept = (changed - images).abs().amax((1, 2, 3)) < 1e-4
    assert (flipped ^ kept).all()
    assert 0 < flipped.sum() < COUNT
    right, left = KEYPOINT_NAMES.index("ear_right"), KEYPOINT_NAMES.index("ear_left")
    across = torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(after[flipped, right, :2], before[flipped, left, :2] * across)
    torch.testing.assert_close(after[kept], before[kept])
