"""The noise schedule against recorded steps, and what must hold at every level."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from personalive.config import ScheduleConfig
from personalive.engine.schedule import Schedule
from support import golden

NOISE, RESIDUAL = Schedule(ScheduleConfig()), Schedule(ScheduleConfig(prediction="residual"))
RECORDED_LEVELS = (0, 1, 333, 666, 998, 999)
timesteps = st.integers(0, 999)
seeds = st.integers(0, 2**31)


def recorded() -> dict[str, Tensor]:
    """One frame per recorded row: (8, 4, 1, 4, 4), and timesteps (8, 1)."""
    arrays = golden.load("scheduler")
    names = ("model_output", "sample", "previous", "original", "noised")
    return arrays | {name: arrays[name][:, :, None] for name in names} | {"timesteps": arrays["timesteps"][:, None]}


def random_tensors(seed: int) -> tuple[Tensor, Tensor]:
    pair = torch.randn(2, 1, 4, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return pair[0], pair[1]


def test_cumulative_products_equal_the_recorded_ones():
    found = NOISE.alphas_cumprod[list(RECORDED_LEVELS)]
    torch.testing.assert_close(found, recorded()["alphas_cumprod"], atol=1e-6, rtol=1e-5)


def test_step_equals_the_recorded_one():
    r = recorded()
    found = NOISE.step(r["model_output"], r["sample"], r["timesteps"])
    torch.testing.assert_close(found.previous, r["previous"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.original, r["original"], atol=1e-3, rtol=1e-4)


def test_noising_equals_the_recorded_one():
    r = recorded()
    found = NOISE.add_noise(r["model_output"], r["sample"], r["timesteps"])  # the recording used them in these roles
    torch.testing.assert_close(found, r["noised"], atol=1e-5, rtol=1e-5)


def test_frames_in_flight_are_cleanest_first():
    assert NOISE.timesteps(4).tolist() == [[0] * 4 + [333] * 4 + [666] * 4 + [999] * 4]


def test_each_frame_has_its_own_level():
    clean, noise = (torch.randn(1, 4, 16, 2, 2, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    levels = NOISE.timesteps(4)
    together = NOISE.add_noise(clean, noise, levels)
    for frame in range(16):
        part = slice(frame, frame + 1)
        alone = NOISE.add_noise(clean[:, :, part], noise[:, :, part], levels[:, part])
        assert torch.equal(together[:, :, part], alone)


@given(timesteps, seeds)
def test_both_kinds_of_prediction_take_the_same_step(timestep: int, seed: int):
    clean, noise = random_tensors(seed)
    at = torch.tensor([[timestep]])
    noisy = NOISE.add_noise(clean, noise, at)
    missing = clean - noisy / NOISE.alphas_cumprod[timestep].double().sqrt()
    by_noise, by_residual = NOISE.step(noise, noisy, at), RESIDUAL.step(missing, noisy, at)
    torch.testing.assert_close(by_residual.original, clean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(by_noise.original, by_residual.original, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(by_noise.previous, by_residual.previous, atol=1e-6, rtol=1e-6)


@given(timesteps, seeds)
def test_with_the_true_noise_a_step_lands_on_the_level_below(timestep: int, seed: int):
    clean, noise = random_tensors(seed)
    noisy = NOISE.add_noise(clean, noise, torch.tensor([[timestep]]))
    step = NOISE.step(noise, noisy, torch.tensor([[timestep]]))
    torch.testing.assert_close(step.original, clean, atol=1e-6, rtol=1e-6)
    below = timestep - NOISE.config.step
    wanted = clean if below < 0 else NOISE.add_noise(clean, noise, torch.tensor([[below]]))
    torch.testing.assert_close(step.previous, wanted, atol=1e-6, rtol=1e-6)


@given(st.integers(0, ScheduleConfig.step - 1), seeds)
def test_a_step_below_zero_gives_the_predicted_clean_sample_itself(timestep: int, seed: int):
    prediction, sample = random_tensors(seed)
    for schedule in (NOISE, RESIDUAL):
        step = schedule.step(prediction, sample, torch.tensor([[timestep]]))
        assert torch.equal(step.previous, step.original)


@pytest.mark.parametrize("schedule", [NOISE, RESIDUAL], ids=["noise", "residual"])
def test_number_format_of_the_sample_is_kept(schedule: Schedule):
    prediction, sample = (t.half() for t in random_tensors(0))
    step = schedule.step(prediction, sample, torch.tensor([[333]]))
    assert step.previous.dtype == step.original.dtype == torch.float16


def test_a_gradient_reaches_the_prediction():
    prediction, sample = random_tensors(0)
    prediction.requires_grad_(True)
    NOISE.step(prediction, sample, torch.tensor([[666]])).previous.sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().min() > 0


def test_fewer_levels_are_a_matter_of_config():
    config = dataclasses.replace(ScheduleConfig(), levels=(0, 499, 998), step=499)
    assert Schedule(config).timesteps(2).tolist() == [[0, 0, 499, 499, 998, 998]]


@given(seed=seeds, level=st.sampled_from(ScheduleConfig().levels[1:]))
def test_moving_is_what_deterministic_steps_do(seed: int, level: int):
    sample, clean = random_tensors(seed)
    config = RESIDUAL.config
    at = torch.tensor([[level]])
    stepped, timestep = sample, level
    while timestep > 0:
        now = torch.tensor([[timestep]])
        missing = clean - stepped / RESIDUAL.alphas_cumprod[timestep].double().sqrt()
        stepped = RESIDUAL.step(missing, stepped, now).previous
        timestep -= config.step
    moved = RESIDUAL.move(sample, clean, at, torch.tensor([[timestep]]))
    torch.testing.assert_close(moved, stepped, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(RESIDUAL.move(sample, clean, at, at), sample, atol=1e-9, rtol=1e-9)
