"""The critic of latents: what it learns, and what it asks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personalive.training.loop import World
from personalive.training.sharpen import HALVING, Adversary, Judged, LatentCritic

N, C, SIDE, MOTION = 6, 4, 8, 10


def judged(seed: int = 0, **changed: Tensor) -> Judged:
    draw = torch.Generator().manual_seed(seed)
    latents = [torch.randn(N, C, SIDE, SIDE, generator=draw) for _ in range(2)]
    motion = torch.randn(N, MOTION, generator=draw)
    weight = torch.ones(N, SIDE // HALVING, SIDE // HALVING)
    return Judged(*latents, motion, weight)._replace(**changed)


def smeared(latents: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(latents, 3, stride=1, padding=1)


@pytest.fixture
def taught() -> Adversary:
    adversary = Adversary(LatentCritic(C, MOTION), World())
    for seed in range(150):
        some = judged(seed)
        adversary.learn(some, smeared(some.real))
    return adversary


def test_all_processes_begin_with_the_same_critic_and_leave_the_random_numbers_alone():
    before = torch.get_rng_state()
    one, other = LatentCritic(C, MOTION), LatentCritic(C, MOTION)
    assert torch.equal(torch.get_rng_state(), before)
    for left, right in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_it_scores_every_place_of_a_frame_by_what_is_near():
    critic, some = LatentCritic(C, MOTION).eval(), judged()
    with torch.no_grad():
        scores = critic(some.real, some.entering, some.motion)
        changed = some.real.clone()
        changed[0, :, -1, -1] += 1
        again = critic(changed, some.entering, some.motion)
    assert scores.shape == (N, SIDE // HALVING, SIDE // HALVING)
    assert scores.dtype is torch.float32
    assert torch.equal(scores[1:], again[1:])
    assert not torch.equal(scores[0, -1, -1], again[0, -1, -1])
    assert torch.equal(scores[0, 0, 0], again[0, 0, 0])


def test_the_motion_decides_too():
    critic, some = LatentCritic(C, MOTION).eval(), judged()
    with torch.no_grad():
        one = critic(some.real, some.entering, some.motion)
        other = critic(some.real, some.entering, some.motion + 1)
    assert not torch.allclose(one, other)


def test_it_learns_to_tell_smeared_latents_on_ones_it_has_not_seen(taught: Adversary):
    some = judged(10_000)
    with torch.no_grad():
        crisp, soft = (taught.critic(z, some.entering, some.motion).mean() for z in (some.real, smeared(some.real)))
    assert crisp > soft + 1


def test_places_without_weight_teach_it_nothing():
    adversary = Adversary(LatentCritic(C, MOTION), World())
    some = judged(weight=torch.zeros(N, SIDE // HALVING, SIDE // HALVING))
    assert adversary.learn(some, smeared(some.real)) == 0
    assert all(p.grad is None or not p.grad.any() for p in adversary.parameters)


def test_following_its_gradient_raises_the_score(taught: Adversary):
    some = judged(20_000)
    fake = smeared(some.real)
    wanted = taught.gradient(some, fake, torch.ones_like(fake), ratio=1.0)
    with torch.no_grad():
        before, after = (taught.critic(z, some.entering, some.motion).mean() for z in (fake, fake - 0.2 * wanted))
    assert after > before + 0.1


@pytest.mark.parametrize("ratio", [0.1, 2.0])
def test_its_gradient_is_as_long_as_asked_where_it_matters(taught: Adversary, ratio: float):
    weight = torch.zeros(N, SIDE // HALVING, SIDE // HALVING)
    weight[:, 1, 2] = weight[0].numel()
    some, own = judged(weight=weight), torch.randn(N, C, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    wanted = taught.gradient(some, smeared(some.real), own, ratio)
    there = (slice(None), slice(None), slice(2, 4), slice(4, 6))
    assert wanted[there].norm().item() == pytest.approx(ratio * own[there].norm().item(), rel=1e-4)
    assert not wanted.requires_grad
