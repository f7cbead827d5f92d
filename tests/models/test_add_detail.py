"""The portrait's detail in decoded frames, with heads whose flow and trust are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.config import DetailConfig
from personalive.models.detail import DetailHead, add_detail, find, moved_portrait
from personalive.synthetic import Identity, Motion, render
from personalive.vision.keypoints import HeadPose
from personalive.vision.warps import move_head

FEATURES, SIDE_PX = 6, 128
LATENT = SIDE_PX // 8
SURE = 200.0  # a sigmoid of this is exactly 1, and of its negative exactly 0
# Fields are computed at a quarter of the side here and at half of it there: mean and largest difference
COARSER_MEAN, COARSER_MOST = 4e-3, 0.3


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def portrait() -> Tensor:
    """(1, 3, S, S) in [-1, 1]."""
    image = render(Identity.sample(4), Motion.neutral(), SIDE_PX).image
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def held() -> HeadPose:
    return HeadPose(
        kp=torch.from_numpy(render(Identity.sample(4), Motion.neutral(), SIDE_PX).canonical_keypoints)[None],
        yaw=torch.zeros(1),
        pitch=torch.zeros(1),
        roll=torch.zeros(1),
        t=torch.zeros(1, 3),
        scale=torch.ones(1, 1),
    )


@pytest.fixture(scope="module")
def wanted(held: HeadPose) -> HeadPose:
    """Three poses: turned, tilted and shifted, nearer."""
    return HeadPose.cat(
        [
            dataclasses.replace(held, yaw=torch.tensor([15.0])),
            dataclasses.replace(held, roll=torch.tensor([-8.0]), t=torch.tensor([[0.1, -0.05, 0.0]])),
            dataclasses.replace(held, scale=torch.tensor([[1.1]])),
        ]
    )


@pytest.fixture
def head() -> DetailHead:
    """Fresh: no flow, and both images trusted alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DetailHead(DetailConfig(width=8, blocks=1, blend_width=8), FEATURES).requires_grad_(False)


def features(count: int) -> Tensor:
    return noise(count, FEATURES, LATENT, LATENT, seed=3)


def decoded(count: int) -> Tensor:
    return noise(count, 3, SIDE_PX, SIDE_PX, seed=4).clamp(-1, 1)


def sure_of(head: DetailHead, bias: float) -> DetailHead:
    head.blend["mask"].bias.fill_(bias)  # type: ignore[operator, union-attr]
    return head


def assert_moved_alike(found: Tensor, expected: Tensor) -> None:
    difference = (found - expected).abs()
    assert difference.mean() < COARSER_MEAN
    assert difference.max() < COARSER_MOST


def test_a_fresh_head_gives_the_mean_of_the_decoded_and_the_moved_portrait(head, portrait, held, wanted):
    shown = move_head(portrait.expand(3, -1, -1, -1), HeadPose.cat([held] * 3), wanted)
    made = add_detail(head, decoded(3), features(3), portrait, held, wanted)
    assert_moved_alike(2 * made - decoded(3), shown)
    assert (shown - portrait).abs().mean() > 10 * COARSER_MEAN


def test_full_trust_gives_what_was_found(head, portrait, held, wanted):
    found, hidden = find(head, features(3), portrait, HeadPose.cat([held] * 3), wanted)
    made = add_detail(sure_of(head, SURE), decoded(3), features(3), portrait, held, wanted)
    torch.testing.assert_close(made, found, atol=1e-6, rtol=0)
    assert found.shape == (3, 3, SIDE_PX, SIDE_PX)
    assert hidden.shape == (3, 8, LATENT, LATENT)


def test_no_trust_gives_what_was_decoded(head, portrait, held, wanted):
    made = add_detail(sure_of(head, -SURE), decoded(3), features(3), portrait, held, wanted)
    assert torch.equal(made, decoded(3))


def test_where_nothing_moves_the_portrait_itself_is_found(head, portrait, held):
    found, _ = find(head, features(1), portrait, held, held)
    torch.testing.assert_close(found, portrait, atol=2e-3, rtol=0)


def test_a_flow_moves_what_is_found(head, portrait, held):
    head.flow.bias.copy_(torch.tensor([0.5, -0.25]))  # times the gain of 0.1: 3.2 and -1.6 px of 128
    found, _ = find(head, features(1), portrait, held, held)
    line = torch.arange(SIDE_PX) + 0.5
    y, x = torch.meshgrid(line - 1.6, line + 3.2, indexing="ij")
    at = torch.stack([x, y], dim=-1)[None] / SIDE_PX * 2 - 1
    expected = F.grid_sample(portrait, at, align_corners=False, padding_mode="border")
    torch.testing.assert_close(found[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], atol=2e-3, rtol=0)


def test_frames_are_found_each_by_its_own_pose(head, portrait, held, wanted):
    together = add_detail(head, decoded(3), features(3), portrait, held, wanted)
    for i in range(3):
        alone = add_detail(head, decoded(3)[[i]], features(3)[[i]], portrait, held, wanted[i])
        torch.testing.assert_close(alone, together[[i]], atol=1e-5, rtol=0)
    assert (together[0] - together[1] - decoded(3)[0] / 2 + decoded(3)[1] / 2).abs().mean() > 0.01


def test_every_frame_may_have_its_own_portrait(head, portrait, held, wanted):
    portraits = torch.cat([portrait, portrait.flip(1), -portrait])
    together, _ = find(head, features(3), portraits, HeadPose.cat([held] * 3), wanted)
    for i in range(3):
        alone, _ = find(head, features(3)[[i]], portraits[[i]], held, wanted[i])
        torch.testing.assert_close(alone, together[[i]], atol=1e-5, rtol=0)


def test_half_precision_stays_half_and_finds_the_same_place(head, portrait, held, wanted):
    full = add_detail(head, decoded(3), features(3), portrait, held, wanted)
    half = add_detail(
        head.bfloat16(), decoded(3).bfloat16(), features(3).bfloat16(), portrait.bfloat16(), held, wanted
    )
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=0.02, rtol=0)


# --- what the head starts from ------------------------------------------------------------------------------


def test_what_the_head_starts_from(portrait, held, wanted):
    small = F.avg_pool2d(portrait, 2).expand(3, -1, -1, -1)
    field, moved, shift = moved_portrait(small, HeadPose.cat([held] * 3), wanted, LATENT)
    assert field.shape == (3, SIDE_PX // 2, SIDE_PX // 2, 2)
    assert moved.shape == (3, 3, SIDE_PX // 2, SIDE_PX // 2)
    assert shift.shape == (3, 2, LATENT, LATENT)
    assert field.dtype is shift.dtype is torch.float32
    torch.testing.assert_close(moved, move_head(small, HeadPose.cat([held] * 3), wanted), atol=1e-6, rtol=0)


def test_the_shift_points_from_the_frame_back_to_the_portrait(portrait, held):
    wanted = dataclasses.replace(held, t=torch.tensor([[0.125, -0.25, 0.0]]))
    _, _, shift = moved_portrait(F.avg_pool2d(portrait, 2), held, wanted, LATENT)
    centre = shift[0, :, LATENT * 3 // 8, LATENT * 9 // 16]  # where the head has gone
    torch.testing.assert_close(centre, torch.tensor([-0.125, 0.25]), atol=1e-3, rtol=0)
