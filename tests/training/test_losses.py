"""Masked errors, perceptual distances and augmentation."""

from __future__ import annotations

import shutil
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


@pytest.mark.parametrize("distance", [FilterDistance()], ids=["filters"])
def test_a_perceptual_distance_punishes_blur_more_than_a_shade(distance):
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


@pytest.fixture(scope="module")
def lpips_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("lpips")
    return folder, lpips_files(folder)


def lpips_files(folder: Path) -> dict[str, Tensor]:
    """Random weights under the published names, in both kinds of file."""
    features = {
        f"features.{key}": drawn(*value.shape, seed=seed) * 0.05
        for seed, (key, value) in enumerate(Lpips().features.state_dict().items())
    }
    features["classifier.0.weight"] = torch.zeros(2, 2)  # torchvision's file has more than is needed
    torch.save(features, folder / "vgg16.pth")
    weights = {f"lin{i}.model.1.weight": drawn(1, w, 1, 1).abs() for i, w in enumerate((64, 128, 256, 512, 512))}
    save_file(weights, folder / "lpips_vgg.safetensors")
    return features | weights


def test_lpips_is_the_published_formula(lpips_folder):
    folder, tensors = lpips_folder
    one, other = drawn(2, 3, 16, 16, seed=5).clamp(-1, 1), drawn(2, 3, 16, 16, seed=6).clamp(-1, 1)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def layers(x: Tensor) -> list[Tensor]:
        x = (x - shift.view(3, 1, 1)) / scale.view(3, 1, 1)
        found = []
        for number in range(30):  # VGG-16: convolutions, rectifiers and pools as torchvision numbers them
            if number in (4, 9, 16, 23):
                x = F.max_pool2d(x, 2)
            elif f"features.{number}.weight" in tensors:
                x = F.conv2d(x, tensors[f"features.{number}.weight"], tensors[f"features.{number}.bias"], padding=1)
                x = x.relu()
            if number in (3, 8, 15, 22, 29):
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    pairs = zip(layers(one), layers(other), strict=True)
    expected = sum(
        F.conv2d((a - b) ** 2, tensors[f"lin{i}.model.1.weight"]).mean(dim=(2, 3)).mean()
        for i, (a, b) in enumerate(pairs)
    )
    network = load_perceptual(folder, torch.device("cpu"))
    torch.testing.assert_close(network(one, other).mean(), expected, atol=1e-5, rtol=1e-4)
    assert network(one, one).tolist() == [0, 0]
    assert not any(p.requires_grad for p in network.parameters())


def test_lpips_without_or_with_other_files_says_so(lpips_folder, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no vgg16.safetensors or vgg16.pth"):
        load_perceptual(tmp_path, torch.device("cpu"))
    shutil.copy(lpips_folder[0] / "vgg16.pth", tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "lpips_vgg.safetensors")
    with pytest.raises(CheckpointError, match=r"lpips_vgg\.safetensors: is not the file that LPIPS needs"):
        load_perceptual(tmp_path, torch.device("cpu"))


# --- augmentation -------------------------------------------------------------------------------------------


def test_without_strength_crops_stay_as_they_are():
    faces = drawn(2, 3, 16, 16).clamp(-1, 1)
    rngs = [np.random.default_rng(i) for i in range(2)]
    torch.testing.assert_close(augment_faces(faces, rngs, QUIET), faces, atol=1e-5, rtol=1e-4)


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
