"""Masked errors, perceptual distances and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from personalive.errors import CheckpointError
from personalive.models.perceptual import Lpips
from personalive.training.config import AugmentConfig, LossConfig
from personalive.training.data.augment import augment_faces, warp_grid
from personalive.training.losses import FilterDistance, fit_masks, load_perceptual, masked_errors
from personalive.training.stages.denoise import keep_tokens

QUIET = AugmentConfig(stretch=1.0, warp_min=0.0, warp_max=0.0, colour=0.0, noise=0.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_masked_errors_by_hand():
    prediction, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    masks = torch.zeros(1, 3, 2, 2)
    masks[0, 0, 0] = 1  # face: the upper row
    masks[0, 1, 0, 0] = 1  # eyes: its left pixel
    masks[0, 2, 1, 1] = 1  # mouth: the lower right one
    errors = masked_errors(prediction, target, masks)
    assert [e.item() for e in errors] == [30 / 4, 5 / 4, 17 / 4]
    weighted = errors.weighted(LossConfig(face=2.0, eyes_and_mouth=3.0), whole=0.5)
    assert weighted.item() == pytest.approx(0.5 * 7.5 + 2 * 1.25 + 3 * 4.25)


def test_masks_are_averaged_or_repeated_to_fit():
    masks = drawn(1, 3, 8, 8)
    torch.testing.assert_close(fit_masks(masks, (4, 4)), F.avg_pool2d(masks, 2))
    assert torch.equal(fit_masks(masks, (16, 16))[:, :, ::2, 1::2], masks)


def test_the_distance_without_weights_punishes_blur_more_than_a_shade():
    distance = FilterDistance()
    noise = F.avg_pool2d(drawn(2, 3, 64, 64), 3, stride=1, padding=1)
    blurred = F.avg_pool2d(noise, 5, stride=1, padding=2)
    shaded = noise + (blurred - noise).abs().mean()  # off by as much on average
    assert distance(noise, noise) == 0
    assert distance(blurred, noise) > 5 * distance(shaded, noise)
    made = noise.clone().requires_grad_(True)
    distance(made * 0.9, noise).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()


def test_lost_faint_detail_counts_beside_strong_edges():
    line = torch.arange(64.0)
    strong = torch.where(line < 32, -1.0, 1.0).expand(1, 3, 64, 64)
    faint = strong + 0.1 * torch.sin(line * 1.5)[:, None] * (line < 24)
    assert FilterDistance()(strong, faint) > 0.02


def test_lpips_without_or_with_other_files_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no vgg16.safetensors or vgg16.pth"):
        load_perceptual(tmp_path, torch.device("cpu"))
    features = {f"features.{key}": value for key, value in Lpips().features.state_dict().items()}
    features["classifier.0.weight"] = torch.zeros(2, 2)  # torchvision's file has more than is needed
    torch.save(features, tmp_path / "vgg16.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "lpips_vgg.safetensors")
    with pytest.raises(CheckpointError, match=r"lpips_vgg\.safetensors: is not the file that LPIPS needs"):
        load_perceptual(tmp_path, torch.device("cpu"))


# --- augmentation -------------------------------------------------------------------------------------------


def test_one_axis_is_stretched():
    grids = [warp_grid(np.random.default_rng(seed), 32, AugmentConfig(warp_min=0, warp_max=0)) for seed in range(20)]
    ranges = torch.stack([grid.amax(dim=(0, 1)) * 32 / 31 for grid in grids])  # 1 where nothing is stretched
    stretched = ranges < 0.999
    assert (stretched.sum(dim=1) <= 1).all()
    assert stretched.any(dim=0).all()  # either axis
    assert ranges.min() > 1 / 1.3 - 1e-3
    assert ranges.min() < 0.85


def test_the_warp_has_the_stated_spread():
    config = AugmentConfig(stretch=1.0)
    plain = warp_grid(np.random.default_rng(0), 64, QUIET)
    grids = torch.stack([warp_grid(np.random.default_rng(seed), 64, config) for seed in range(50)])
    corners = (grids - plain)[:, ::63, ::63].flatten() / 2  # in sides; corners are knots
    assert 0.02 < corners.std() < 0.04
    assert corners.abs().max() > 0.04


def test_frames_of_a_clip_share_all_but_the_noise():
    face = drawn(1, 3, 16, 16).clamp(-1, 1)
    config = AugmentConfig(noise=0.0)
    found = augment_faces(face.expand(3, -1, -1, -1), [np.random.default_rng(0)], config, frames=3)
    assert torch.equal(found[0], found[1])
    assert (found[0] - face[0]).abs().mean() > 0.02
    noisy = augment_faces(face.expand(3, -1, -1, -1), [np.random.default_rng(0)], AugmentConfig(), frames=3)
    assert not torch.equal(noisy[0], noisy[1])


def test_a_sample_is_changed_alike_in_any_batch():
    faces = drawn(2, 3, 16, 16).clamp(-1, 1)
    both = augment_faces(faces, [np.random.default_rng(i) for i in (3, 4)], AugmentConfig())
    alone = augment_faces(faces[1:], [np.random.default_rng(4)], AugmentConfig())
    torch.testing.assert_close(both[1:], alone)
    assert both.abs().max() <= 1


def test_three_tenths_of_the_tokens_go():
    tokens = torch.arange(100.0).view(1, 50, 2).repeat(2, 1, 1)
    kept = keep_tokens(tokens, [np.random.default_rng(i) for i in range(2)], 0.3)
    assert kept.shape == (2, 35, 2)
    for row in kept:
        assert len(row[:, 0].unique()) == 35
        assert torch.equal(row[:, 1], row[:, 0] + 1)
    assert not torch.equal(kept[0].sort(dim=0)[0], kept[1].sort(dim=0)[0])
