"""Seeded values for the released shape: of the size that the recorded stand-in has, and the same every time."""

from __future__ import annotations

import pytest
import torch

from personalive.models.networks import Networks
from personalive.training.scratch import build_networks
from support import keyseeded
from support.small_model import SMALL_SHAPE
from timing.seeded import fill, released_shape, seeded_networks

CPU, META = torch.device("cpu"), torch.device("meta")
TENSORS = {"reference_unet": 682, "denoising_unet": 1820, "motion_encoder": 403, "pose_guider": 16}  # released


def make_filled(dtype: torch.dtype = torch.float32, seed: int = 0) -> Networks:
    networks = build_networks(SMALL_SHAPE)
    for name, module in networks.modules().items():
        fill(module, device=CPU, dtype=dtype, seed=seed, salt=name)
    return networks


@pytest.fixture(scope="module")
def filled() -> Networks:
    return make_filled()


def test_values_have_the_size_of_the_recorded_stand_in(filled: Networks):
    compared = 0
    for name, module in filled.modules().items():
        for key, wanted in keyseeded.state_dict(keyseeded.layout_of(module)).items():
            found = module.state_dict()[key]
            assert found.shape == wanted.shape
            if wanted.numel() >= 1000 and wanted.is_floating_point():
                ratio = found.std() / wanted.std()
                assert 0.85 < ratio < 1.15, f"{name} {key}"
                assert (found.mean() - wanted.mean()).abs() < 0.2 * wanted.std(), f"{name} {key}"
                compared += 1
    assert compared > 20


def test_heads_are_plausible_and_tables_are_their_own(filled: Networks):
    extractor = filled.motion_extractor.state_dict()
    layout = {key: value for key, value in keyseeded.layout_of(filled.motion_extractor).items() if "fc_" in key}
    for key, wanted in keyseeded.state_dict(layout).items():
        assert (extractor[key].abs().mean() / wanted.abs().mean()).log().abs() < 1.5, key
    table = next(k for k in filled.denoising_unet.state_dict() if k.endswith("pos_encoder.pe"))
    wanted = build_networks(SMALL_SHAPE).denoising_unet.state_dict()[table]
    torch.testing.assert_close(filled.denoising_unet.state_dict()[table], wanted, rtol=0, atol=0)


def test_values_depend_on_the_seed_alone_and_half_precision_is_rounded(filled: Networks):
    first, again, other, half = (
        networks.denoising_unet.state_dict()
        for networks in (filled, make_filled(), make_filled(seed=1), make_filled(torch.bfloat16))
    )
    for key, value in first.items():
        if key.endswith("pe"):
            continue
        assert torch.equal(value, again[key])
        assert not torch.equal(value, other[key])
        assert torch.equal(value.to(torch.bfloat16), half[key])


def test_the_released_shape_has_the_released_tensors():
    networks = seeded_networks(released_shape(), device=META, dtype=torch.float16)
    modules = networks.modules()
    assert "detail" not in modules
    assert {name: len(modules[name].state_dict()) for name in TENSORS} == TENSORS
    for module in modules.values():
        assert not module.training
        assert {p.dtype for p in module.parameters()} == {torch.float16}
        assert not any(p.requires_grad for p in module.parameters())
    assert networks.config.image_size_px == 512
