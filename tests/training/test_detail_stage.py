"""Stage detail: how images are compared, and what the stage trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from personalive.models.networks import Networks
from personalive.training.build import build_networks
from personalive.training.cache import FrameCache
from personalive.training.data import RenderedSet, render_set
from personalive.training.detail import SCALES, DetailStage, compare
from personalive.training.motion import MotionModules, MotionStage
from training.conftest import DATA, toy_preset

STEP = 5


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[RenderedSet, FrameCache]:
    """A rendered set, and what fresh networks say of it."""
    folder = tmp_path_factory.mktemp("detail")
    networks = build_networks(toy_preset())
    render_set(folder / "data", DATA, lambda _: None, workers=1)
    data = RenderedSet(folder / "data")
    cache = FrameCache(folder / "cache", data, networks)
    cache.fill_latents(data, networks, lambda _: None)
    cache.fill_faces(data, networks, lambda _: None)
    cache.open().fill_moved(data, networks, lambda _: None)
    cache.fill_tokens(networks.motion_encoder.eval(), lambda _: None)
    return data, cache.open()


@pytest.fixture
def networks() -> Networks:
    networks = build_networks(toy_preset())
    for module in networks.modules().values():
        module.eval().requires_grad_(True)  # nothing is frozen: the stage alone decides what is reached
    return networks


@pytest.fixture
def stage(networks: Networks, world: tuple[RenderedSet, FrameCache]) -> DetailStage:
    motion = MotionStage(MotionModules(networks), networks, *world, batch=2, frames=2)
    assert motion.finding is not None
    return DetailStage(motion, motion.finding, networks)


# --- comparing ----------------------------------------------------------------------------------------------


def test_equal_pictures_differ_in_nothing():
    pictures = noise(2, 3, 16, 16)
    assert compare(pictures, pictures.clone(), noise(2, 1, 4, 4).abs()) == 0


def test_a_constant_difference_is_itself_at_any_scale():
    frames = noise(2, 3, 16, 16)
    assert compare(frames + 0.25, frames, torch.ones(2, 1, 4, 4)).item() == pytest.approx(0.25, abs=1e-6)
    assert compare(frames - 0.25, frames, torch.ones(2, 1, 4, 4)).item() == pytest.approx(0.25, abs=1e-6)


def test_a_place_counts_by_its_weight():
    frames, made = noise(1, 3, 16, 16), noise(1, 3, 16, 16)
    made[..., 4:8, 8:12] += 0.5  # the cell of row 1, column 2
    weight = torch.full((1, 1, 4, 4), 0.8)
    weight[0, 0, 1, 2] = 4.0
    assert compare(made, frames, weight).item() == pytest.approx(4.0 * 0.5 / 16, abs=1e-6)


def test_what_evens_out_is_seen_at_the_finest_scale_alone():
    frames = noise(1, 3, 16, 16)
    line = torch.arange(16)
    board = 0.3 * (1 - 2.0 * ((line[:, None] + line) % 2))
    assert compare(frames + board, frames, torch.ones(1, 1, 4, 4)).item() == pytest.approx(0.3 / SCALES, abs=1e-6)


# --- the stage ----------------------------------------------------------------------------------------------


def test_only_the_head_is_trained(stage: DetailStage, networks: Networks):
    assert networks.detail is not None
    for parameter in networks.detail.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    stage(STEP, 0.0)["loss"].backward()
    reached = {
        f"{part}.{name}"
        for part, module in networks.modules().items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {f"detail.{name}" for name, _ in networks.detail.named_parameters()}


def test_what_it_says_of_a_fresh_head(stage: DetailStage):
    losses = stage(STEP, 0.0)
    assert losses["trust"] == 0.5
    assert not losses["decoded"].requires_grad
    assert not losses["trust"].requires_grad
    assert losses["blended"] < losses["decoded"]  # a fresh decoder knows nothing of the frame, the portrait does


def test_the_head_comes_to_trust_the_better_picture(stage: DetailStage):
    optimiser = torch.optim.Adam(stage.finding.head.blend.parameters(), lr=1e-2)
    first = stage(STEP, 0.0)
    for _ in range(4):
        optimiser.zero_grad()
        stage(STEP, 0.0)["loss"].backward()
        optimiser.step()
    last = stage(STEP, 0.0)
    assert last["blended"] < 0.97 * first["blended"]
    assert last["trust"] > first["trust"]
    assert last["decoded"] == first["decoded"]  # the same draw, and nothing else has changed
