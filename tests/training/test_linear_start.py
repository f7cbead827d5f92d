"""The linear starts: what they pass through is what comes out of the real nets."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from personalive.training.build import build_networks
from personalive.training.linear_start import LinearPath, fit, place
from support.small_model import SMALL_PRESET

WIDTHS, LATENT_CHANNELS = [8, 8, 16], 4


def smooth_pictures(step: int) -> torch.Tensor:
    """(4, 3, 32, 32) blobs in about [-1, 1]: what a few latents can hold."""
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    return F.interpolate(noise, size=(32, 32), mode="bilinear").clamp(-1, 1)


@pytest.fixture(scope="module")
def path() -> LinearPath:
    torch.manual_seed(0)
    path = LinearPath(WIDTHS, LATENT_CHANNELS)
    fit(path, smooth_pictures, 60)
    return path


def test_fitting_packs_pictures_into_latents(path: LinearPath):
    images = smooth_pictures(1000)
    assert F.mse_loss(path.decode(path.encode(images)), images) < 0.25 * images.square().mean()


def test_latents_end_with_spread_one_on_their_own_axes(path: LinearPath):
    z = torch.cat([path.encode(smooth_pictures(60 + i)) for i in range(16)]).transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(z), torch.eye(LATENT_CHANNELS), atol=1e-3)
    assert torch.allclose(z.mean(dim=1), torch.zeros(LATENT_CHANNELS), atol=1e-3)


def test_the_autoencoder_begins_as_the_path(path: LinearPath):
    vae = dict(SMALL_PRESET.vae) | {
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "block_out_channels": WIDTHS,
        "norm_num_groups": 1,
    }
    model = build_networks(dataclasses.replace(SMALL_PRESET, vae=vae)).vae
    place(path, model)
    images = smooth_pictures(1000)
    with torch.no_grad():
        expected = path.encode(images)
        latents = model.encode(images).latent_dist.mean
        output = model.decode(expected).sample
        assert F.mse_loss(latents, expected) < 0.01 * expected.var()  # norms bend it a little
        assert F.mse_loss(output, path.decode(expected)) < 0.01 * images.var()
