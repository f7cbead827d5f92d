"""Loss of latents: robust errors, channels by their effect, and the discriminator that judges the face."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personalive.training.discriminator import SCORE_SIDE, Judged, LatentDiscriminator
from personalive.training.losses import LatentLoss, masked_errors
from support.toy_run import toy_config, toy_context

N, C, SIDE, MOTION = 6, 4, 8, 32


def judged(seed: int = 0, **changed: Tensor) -> Judged:
    draw = torch.Generator().manual_seed(seed)
    latents = [torch.randn(N, C, SIDE, SIDE, generator=draw) for _ in range(2)]
    motion = torch.randn(N, MOTION, generator=draw)
    return Judged(*latents, motion, torch.ones(N, SIDE // SCORE_SIDE, SIDE // SCORE_SIDE))._replace(**changed)


def smeared(latents: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(latents, 3, stride=1, padding=1)


def loss_of(*values: str, effect: Tensor | None = None) -> LatentLoss:
    context = toy_context(
        toy_config("distill", "loss.domain=latents", "discriminator.generator_from_step=3", *values)
    )
    return LatentLoss(context.config, context.networks, context.compute, effect)


NOWHERE = torch.zeros(N, 3, SIDE, SIDE)


@pytest.fixture(scope="module")
def taught() -> LatentLoss:
    loss = loss_of("loss.adversarial=0.5")
    optimiser = torch.optim.AdamW(loss.discriminator.parameters(), lr=5e-4, betas=(0.0, 0.99), weight_decay=0.0)
    for seed in range(150):
        some = judged(seed)
        optimiser.zero_grad()
        loss.discriminator_loss(smeared(some.real), *some)["discriminator"].backward()
        optimiser.step()
    return loss


# --- errors -------------------------------------------------------------------------------------------------


def test_robust_errors_are_square_near_zero_and_linear_beyond():
    truth = torch.zeros(1, 1, 2, 2)
    small, large = (masked_errors(truth + x, truth, NOWHERE[:1], robust_from=0.1).whole for x in (0.001, 100.0))
    assert small.item() == pytest.approx(0.001**2 / (2 * 0.1), rel=1e-2)
    assert large.item() == pytest.approx(100 - 0.1, rel=1e-3)


def test_channels_count_by_the_root_of_their_effect():
    loss = loss_of(effect=torch.tensor([1.0, 4.0, 9.0, 16.0]))
    errors = []
    for channel in range(C):
        made = torch.zeros(N, C, SIDE, SIDE)
        made[:, channel] = 1
        errors.append(loss.errors(made, torch.zeros_like(made), NOWHERE).whole.item())
    assert [error / errors[0] for error in errors] == pytest.approx([1, 2, 3, 4])
    assert sum(errors) == pytest.approx(1)  # as if all counted alike


# --- the discriminator --------------------------------------------------------------------------------------


def test_all_processes_begin_with_the_same_one_and_leave_the_random_numbers_alone():
    before = torch.get_rng_state()
    one, other = LatentDiscriminator(C, MOTION), LatentDiscriminator(C, MOTION)
    assert torch.equal(torch.get_rng_state(), before)
    for left, right in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_every_place_is_scored_by_what_is_near_and_by_the_motion():
    network, some = LatentDiscriminator(C, MOTION).eval(), judged()
    changed = some.real.clone()
    changed[0, :, -1, -1] += 1
    with torch.no_grad():
        scores, again = (network(x, some.entering, some.motion) for x in (some.real, changed))
        moved = network(some.real, some.entering, some.motion + 1)
    assert scores.shape == (N, SIDE // SCORE_SIDE, SIDE // SCORE_SIDE)
    assert torch.equal(scores[1:], again[1:])
    assert not torch.equal(scores[0, -1, -1], again[0, -1, -1])
    assert torch.equal(scores[0, 0, 0], again[0, 0, 0])
    assert not torch.allclose(scores, moved)


def test_it_tells_smeared_latents_that_it_has_not_seen(taught: LatentLoss):
    some = judged(10_000)
    with torch.no_grad():
        crisp, soft = (
            taught.discriminator(z, some.entering, some.motion).mean() for z in (some.real, smeared(some.real))
        )
    assert crisp > soft + 1


def test_places_without_weight_teach_it_nothing():
    loss = loss_of("loss.adversarial=0.5")
    some = judged(weight=torch.zeros(N, SIDE // SCORE_SIDE, SIDE // SCORE_SIDE))
    found = loss.discriminator_loss(smeared(some.real), *some)["discriminator"]
    found.backward()
    assert found == 0
    assert all(p.grad is None or not p.grad.any() for p in loss.discriminator.parameters())


@pytest.mark.parametrize("ratio", [0.1, 2.0])
def test_the_term_has_the_asked_length_in_the_face_and_no_value(taught: LatentLoss, ratio: float):
    weight = torch.zeros(N, SIDE // SCORE_SIDE, SIDE // SCORE_SIDE)
    weight[:, 1, 2] = weight[0].numel()
    some, there = judged(20_000, weight=weight), (slice(None), slice(None), slice(2, 4), slice(4, 6))
    loss = loss_of(f"loss.adversarial={ratio}")
    loss.discriminator.load_state_dict(taught.discriminator.state_dict())
    gradients = []
    for step in (2, 3):  # the term begins with step 3
        made = smeared(some.real).requires_grad_(True)
        output = loss.output(made, some, NOWHERE, step)
        gradients.append(torch.autograd.grad(output.losses["loss"], made)[0])
        gradients[-1] = gradients[-1].detach()
        assert output.losses["loss"].item() == pytest.approx(output.losses["latent"].item(), rel=1e-5)
    own, both = gradients
    assert (both - own)[there].norm().item() == pytest.approx(ratio * own[there].norm().item(), rel=1e-3)
    with torch.no_grad():
        before, after = (
            taught.discriminator(z, some.entering, some.motion)[:, 1, 2].mean()
            for z in (smeared(some.real), smeared(some.real) - 20 * (both - own))
        )
    assert after > before
