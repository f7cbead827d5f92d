"""Cost of a call in the released shape, counted without computing it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from personalive.models.attention import KV, FrameInputs, TemporalAttention
from personalive.models.unet import DenoisingUNet, ReferenceUNet, UNetConfig

SIDE, CHUNK, TOKENS = 64, 4, 32  # of a latent at 512 px
FRAMES = 4 * CHUNK
TERA = 1e12


@pytest.fixture(scope="module")
def denoiser() -> DenoisingUNet:
    with torch.device("meta"):
        return DenoisingUNet(UNetConfig())


@pytest.fixture(scope="module")
@torch.no_grad()
def reference(denoiser: DenoisingUNet) -> dict[str, KV]:
    """Keys and values of one image, with the shapes that the reference net gives them."""
    with torch.device("meta"):
        latent, context = torch.empty(1, 4, SIDE, SIDE), torch.empty(1, 1, 768)
        features = ReferenceUNet(UNetConfig())(latent, torch.zeros(1, 1, dtype=torch.long), context)
    return denoiser.project_reference(features)


@pytest.fixture(scope="module")
def call(denoiser: DenoisingUNet, reference: dict[str, KV]) -> Callable[..., int]:
    """Counts the FLOPs of one call with a portrait and ``images - 1`` keyframes; each kind of call once."""
    return cache(partial(count_call, denoiser, reference))


@torch.no_grad()
def count_call(
    denoiser: DenoisingUNet, reference: dict[str, KV], images: int, *, frames: int = FRAMES, shifted: bool = False
) -> int:
    known = embed_time(denoiser) if shifted else None
    attended = {name: KV(*(torch.cat([t] * images, dim=1) for t in kv)) for name, kv in reference.items()}
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        denoiser(
            torch.empty(1, 4, frames, SIDE, SIDE),
            torch.zeros(1, frames, dtype=torch.long),
            context=torch.empty(1, 1, 768),
            motion=torch.empty(1, frames, TOKENS, 16),
            pose=torch.empty(1, 320, frames, SIDE, SIDE),
            reference=attended,
            time_embeddings=known,
        )
    return counted.get_total_flops()


def embed_time(denoiser: DenoisingUNet) -> dict[str, Tensor]:
    """Embeddings of the frames' times, by block: they depend on nothing else."""
    with torch.device("meta"), torch.no_grad():
        return denoiser.embed_time(torch.zeros(1, FRAMES, dtype=torch.long))


@pytest.mark.parametrize(("keyframes", "limit"), [(0, 23.4), (3, 29.3)])
def test_a_call_of_the_released_shape_stays_within_its_operations(call, keyframes: int, limit: float):
    count = call(1 + keyframes, frames=FRAMES) / TERA
    assert 0.9 * limit < count <= limit  # far fewer would mean that the count misses something


def test_known_time_embeddings_save_their_projections(denoiser, call):
    widths = sum(shift.shape[1] for shift in embed_time(denoiser).values())
    inner = 4 * 320
    saved = 2 * FRAMES * (inner * widths + 320 * inner + inner * inner)
    assert call(1, frames=FRAMES) - call(1, frames=FRAMES, shifted=True) == saved


@pytest.mark.parametrize(("steps", "limit"), [(1, 5.9), (2, 11.7), (3, 17.6), (4, 23.4)])
def test_each_step_of_denoising_takes_as_many_operations_as_the_next(call, steps: int, limit: float):
    count = call(1, frames=steps * CHUNK) / TERA
    assert 0.95 * limit < count <= limit


@torch.no_grad()
def test_temporal_attention_projects_all_positions_in_one_product():
    with FlopCounterMode(display=False) as counted:
        module = TemporalAttention(16, 16, heads=2).requires_grad_(False)
        module(torch.randn(FRAMES, 9, 16), FrameInputs(FRAMES))
    operations = counted.get_flop_counts()["Global"]
    assert {torch.ops.aten.mm, torch.ops.aten.addmm} <= operations.keys()
    assert torch.ops.aten.bmm not in operations  # a product for each position
