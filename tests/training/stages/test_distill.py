"""Stage distill: how many steps, from where, at which levels, and what carries the gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personalive.training.parameters import choose
from personalive.training.stages.denoise import noise_of
from personalive.training.stages.image_level import DistillLosses
from support.toy_run import batch_of, rows, toy_config, toy_context, toy_loop, toy_networks, watched

TOP_DOWN = [999, 666, 333, 0]


@pytest.fixture(scope="module")
def networks():
    networks = toy_networks()
    choose(networks, "distill")
    return networks


def losses_of(networks, *values: str) -> DistillLosses:
    nothing_off = ("drop.reference=0", "drop.pose=0", "drop.motion=0", "drop.reference_tokens=0")
    return DistillLosses(toy_context(toy_config("distill", *nothing_off, *values), networks))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    return watched(monkeypatch)


def test_each_sample_ends_after_its_own_number_of_steps(networks, seen):
    losses = losses_of(networks, "distill.inference_form=false")
    batch, rngs = batch_of(losses, 0, range(4))
    conditions = losses.condition(batch, rngs, train=False)
    with torch.no_grad():
        sample, levels = losses.roll(batch, rngs, conditions, [1, 2, 3, 4])
    assert levels[:, 0].tolist() == TOP_DOWN
    assert [call["levels"][:, 0].tolist() for call in seen] == [[999] * 3, [666] * 2, [333]]
    assert all(not call["temporal"] for call in seen)
    assert sample.shape == (4, 4, 1, 8, 8)


def test_between_steps_comes_fresh_noise(networks, seen):
    losses = losses_of(networks, "distill.inference_form=false")
    batch, rngs = batch_of(losses, 0, [0])
    conditions = losses.condition(batch, rngs, train=False)
    _, again = batch_of(losses, 0, [0])  # the same draws once more
    with torch.no_grad():
        sample, _ = losses.roll(batch, rngs, conditions, [3])
    device = torch.device("cpu")
    assert torch.equal(seen[0]["latents"], noise_of(again, (4, 1, 8, 8), device))  # pure noise
    for i, level in ((0, 666), (1, 333)):
        lower = torch.tensor([[level]])
        noise = noise_of(again, (4, 1, 8, 8), device)
        expected = losses.schedule.add_noise(seen[i]["clean"], noise, lower)
        torch.testing.assert_close(seen[i + 1]["latents"] if i == 0 else sample, expected)


def test_as_in_use_it_begins_with_the_portrait_and_steps_like_the_engine(networks, seen):
    losses = losses_of(networks, "distill.inference_form=true")
    batch, rngs = batch_of(losses, 0, [0])
    again = batch_of(losses, 0, [0])
    conditions = losses.condition(batch, rngs, train=False)
    with torch.no_grad():
        sample, _ = losses.roll(batch, rngs, conditions, [2])
    schedule, top = losses.schedule, torch.tensor([[999]])
    entering, _ = losses.entering(*again)
    torch.testing.assert_close(seen[0]["latents"], entering)
    portrait = batch.portrait[:, :, None]
    signal = schedule.alphas_cumprod[999]
    assert ((entering - signal.sqrt() * portrait).std() - (1 - signal).sqrt()).abs() < 0.2
    missing = seen[0]["clean"] - entering / signal.sqrt()  # which the small model predicts
    stepped = schedule.step(missing, entering, top)
    torch.testing.assert_close(sample, stepped.previous, rtol=1e-4, atol=1e-4)


def test_only_the_last_step_carries_the_gradient(networks, seen):
    losses = losses_of(networks)
    for step in range(3):
        (output,) = losses.losses(step, *batch_of(losses, step, [0, 1]))
        assert output.losses["loss"].requires_grad
    last = [call["gradient"] for call in seen]
    assert last.count(True) == 3
    assert seen[-1]["gradient"]
    assert len(seen) > 3  # some samples took more than one step


def test_the_adversarial_game_begins_on_time(tmp_path: Path):
    starts = ["discriminator.generator_from_step=1", "discriminator.train_from_step=2"]
    toy_loop(tmp_path, toy_config("distill", "steps=3", *starts)).run()
    found = rows(tmp_path)
    assert [("adversarial" in row, "discriminator" in row) for row in found] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    adversarial = toy_config("distill").loss.adversarial
    whole = found[1]["loss"] - adversarial * found[1]["adversarial"] - 2.0 * found[1]["perceptual"]
    assert whole > found[1]["pixel"]  # plus the masked errors


def test_the_networks_loss_leaves_no_trace_in_the_discriminator(tmp_path: Path):
    """With its own updates off, a step that shows it to the networks changes nothing of it."""
    config = toy_config(
        "distill", "steps=1", "discriminator.generator_from_step=0", "discriminator.train_from_step=9"
    )
    loop = toy_loop(tmp_path, config)
    assert loop.stage.adversary is not None
    network = loop.stage.adversary.discriminator
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    loop.run()
    assert "adversarial" in rows(tmp_path)[0]
    assert all(torch.equal(p, before[n]) for n, p in network.named_parameters())


def test_a_resumed_game_gives_the_same_losses_bit_for_bit(tmp_path: Path):
    toy_loop(tmp_path / "whole", toy_config("distill", "steps=2")).run()
    toy_loop(tmp_path / "parts", toy_config("distill", "steps=1")).run()
    toy_loop(tmp_path / "parts", toy_config("distill", "steps=2")).run()
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
