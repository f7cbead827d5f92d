"""Linear layers in eight bits against the same in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from personalive.models.quantized import KINDS, QuantizedLinear, quantize_transformers
from personalive.streaming.backends.base import Backend
from personalive.streaming.engine import Engine
from support.small_engine import key_seeded_networks, noise_pictures

ERRORS = {"int8": 0.015, "fp8": 0.05}  # of the standard deviation; measured 0.009 and 0.037


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted).square().mean().sqrt() / wanted.std())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64, 96), (2, 3, 40, 96), (1, 3, 96)])
@torch.no_grad()
def test_products_are_near_those_of_float32(kind: str, bias: bool, shape: tuple[int, ...]):
    linear = nn.Linear(96, 128, bias=bias)
    nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(1))
    given = noise(*shape)
    found = QuantizedLinear(linear, kind)(given)
    assert found.shape == (*shape[:-1], 128) and found.dtype == given.dtype
    assert 1e-4 < error(found, linear(given)) < ERRORS[kind]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_token_of_nothing_and_one_of_much_do_not_disturb_the_others(kind: str):
    linear = nn.Linear(32, 16, bias=False)
    given = noise(40, 32)
    quantized = QuantizedLinear(linear, kind)
    alone = quantized(given)
    given[0], given[1] = 0, 1e4
    found = quantized(given)
    assert torch.equal(found[0], torch.zeros(16))
    assert error(found[1], linear(given)[1]) < ERRORS[kind]
    assert torch.equal(found[2:], alone[2:])


def test_only_the_transformers_of_a_denoiser_are_narrowed():
    unet = key_seeded_networks().denoising_unet
    before = {name for name, module in unet.named_modules() if isinstance(module, nn.Linear)}
    count = quantize_transformers(unet, "int8")
    after = {name for name, module in unet.named_modules() if isinstance(module, nn.Linear)}
    narrowed = {name for name, module in unet.named_modules() if isinstance(module, QuantizedLinear)}
    assert len(narrowed) == count > 0
    assert before == after | narrowed
    assert all("transformer_blocks" in name for name in narrowed)
    assert "time_embedding.linear_1" in after


@pytest.mark.parametrize(("kind", "limit"), [("int8", 0.05), ("fp8", 0.15)])
def test_a_stream_stays_near(kind: str, limit: float):
    plain, narrowed = Engine(key_seeded_networks()), key_seeded_networks()
    quantize_transformers(narrowed.denoising_unet, kind)
    engine = Engine(narrowed, backend=Backend(narrowed))
    state = plain.start(noise_pictures(1, 2)[0])
    window = noise_pictures(4, 3)
    wanted, found = plain.step(state, window)[1].float(), engine.step(state, window)[1].float()
    assert 0 < error(found, wanted) < limit
