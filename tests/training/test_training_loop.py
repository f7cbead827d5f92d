"""The optimisation loop: rates, averaging, log, ends; augmentation; starts from data."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from personalive.training.augment import jitter_colours, jitter_place
from personalive.training.build import standardise_norms
from personalive.training.loop import LOG_EVERY_STEPS, Average, TrainingError, progress, set_lr, train
from personalive.training.presets import StageConfig


def rates(config: StageConfig) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    found = []
    for step in range(config.steps):
        set_lr(optimiser, config, step, progress(config, step, 0.0))
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_the_rate_warms_up_and_falls_to_a_twentieth():
    config = StageConfig(steps=1000, batch=1, lr=0.2, warmup_steps=50)
    found = rates(config)
    assert found[0] == pytest.approx(0.2 / 50, rel=1e-3)
    assert max(found) == pytest.approx(0.2, rel=0.01)
    assert found.index(max(found)) == 49
    assert all(later <= earlier for earlier, later in pairwise(found[49:]))
    assert found[-1] == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(("step", "seconds", "share"), [(0, 0, 0), (50, 0, 0.5), (10, 90, 0.75), (100, 1, 1)])
def test_a_stage_ends_by_steps_or_by_time(step: int, seconds: float, share: float):
    assert progress(StageConfig(steps=100, minutes=2, batch=1), step, seconds) == pytest.approx(share)


def test_the_average_halves_its_distance_in_a_half_life():
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = Average(module.state_dict(), half_life_steps=20)
    nn.init.ones_(module.weight)
    for step in range(10_000, 10_020):  # far beyond the warm-up
        average.update(step)
    assert average.values["weight"].item() == pytest.approx(0.5, abs=1e-4)
    assert not average.values["weight"].requires_grad
    assert module.weight.item() == 1


def test_the_average_forgets_its_start_quickly_and_follows_buffers():
    module = nn.BatchNorm1d(2)
    average = Average(module.state_dict(), half_life_steps=1000)
    module.weight.data.fill_(5)
    module(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    for step in range(60):
        average.update(step)
    assert (average.values["weight"] - 5).abs().max() < 0.01
    torch.testing.assert_close(average.values["running_mean"], module.running_mean, atol=1e-3, rtol=1e-2)
    assert average.values["num_batches_tracked"] == 1


def quadratic(module: nn.Linear):
    return lambda step, done: {"loss": (module.weight - 3).square().sum(), "done": torch.tensor(done)}


def test_training_minimises_logs_and_keeps_frozen_parameters(tmp_path: Path):
    module, frozen = nn.Linear(2, 2), nn.Parameter(torch.ones(2), requires_grad=False)
    module.bias = frozen
    config = StageConfig(steps=3 * LOG_EVERY_STEPS, batch=1, lr=0.3, warmup_steps=1, weight_decay=0, clip_norm=10)
    taken: list[int] = []
    averaged = train(
        "toy", module, quadratic(module), config, tmp_path / "logs" / "log.jsonl", lambda m, step: taken.append(step)
    )
    assert (module.weight - 3).abs().max() < 0.2
    assert torch.equal(module.bias, torch.ones(2))
    assert averaged is not module
    rows = [json.loads(line) for line in (tmp_path / "logs" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [LOG_EVERY_STEPS * i for i in (1, 2, 3)]
    assert {"stage", "seconds", "loss", "done", "norm"} <= rows[0].keys()
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert taken == [config.steps]  # the snapshot at the end


def test_a_loss_that_is_not_a_number_ends_training_in_one_line(tmp_path: Path):
    module = nn.Linear(1, 1)
    before = module.weight.clone()
    with pytest.raises(TrainingError) as error:
        train(
            "toy",
            module,
            lambda step, done: {"loss": module.weight.sum() * math.nan},
            StageConfig(steps=5, batch=1),
            tmp_path / "log.jsonl",
        )
    assert "toy" in str(error.value)
    assert "step 0" in str(error.value)
    assert "\n" not in str(error.value)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("jitter", [jitter_colours, jitter_place])
def test_augmentation_keeps_shape_and_range_and_follows_its_generator(jitter):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, again, other = (jitter(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == images.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, again)
    assert (one - other).abs().mean() > 0.01
    assert (one - images).abs().mean() > 0.01


def test_norms_start_standardised_one_after_another():
    torch_generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 5), nn.LayerNorm(5)).requires_grad_(False)
    inputs = 3 + torch.randn(400, 6, generator=torch_generator)
    standardise_norms(net, lambda: net(inputs))
    for output in (net[:2](inputs), net(inputs)):
        assert output.mean(dim=0).abs().max() < 1e-3
        assert (output.std(dim=0) - 1).abs().max() < 1e-3
    assert not any(module._forward_hooks for module in net.modules())
