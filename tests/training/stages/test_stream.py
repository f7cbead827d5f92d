"""Sliding training: noise levels per window, what slides, and which windows carry a gradient."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from personalive.config import ScheduleConfig
from personalive.engine.engine import Engine
from personalive.engine.schedule import Schedule
from personalive.errors import InputError
from personalive.training.parameters import choose
from personalive.training.stages import stream
from personalive.training.stages.denoise import noise_of
from personalive.training.stages.stream import StreamLosses, detached
from support.toy_run import batch_of, toy_config, toy_context, toy_networks, watched

LEVELS = [0] * 4 + [333] * 4 + [666] * 4 + [999] * 4


@pytest.fixture(scope="module")
def networks():
    networks = toy_networks()
    choose(networks, "stream")
    return networks


def context_of(networks, *values: str, form: str = "false"):
    return toy_context(toy_config("stream", f"stream.inference_form={form}", *values), networks)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    return watched(monkeypatch)


def test_seven_windows_with_gradients_at_the_first_the_middle_and_the_last(networks, seen):
    losses = StreamLosses(context_of(networks))
    assert losses.updates == 3
    outputs = list(losses.losses(0, *batch_of(losses, 0, [0])))
    assert [call["gradient"] for call in seen] == [True, False, False, True, False, False, True]
    assert all(call["levels"].tolist() == [LEVELS] for call in seen)
    assert all(call["temporal"] for call in seen)
    assert [output.judged[0].shape for output in outputs] == [(16, 3, 64, 64)] * 3
    assert all(output.judged[2].tolist() == LEVELS for output in outputs)


def test_truth_enters_the_first_window_and_predictions_the_others(networks, seen):
    losses = StreamLosses(context_of(networks))
    batch, rngs = batch_of(losses, 0, [0])
    list(losses.predictions(None, batch, rngs))
    _, rngs = batch_of(losses, 0, [0])  # as the roll-out had them
    schedule = losses.schedule
    noise = noise_of(rngs, (4, 16, 8, 8), torch.device("cpu"))
    levels = torch.tensor([LEVELS])
    first = schedule.add_noise(batch.latent[:, :, :16], noise, levels)
    torch.testing.assert_close(seen[0]["latents"][:, :, :12], first[:, :, :12])
    assert torch.equal(seen[0]["latents"][:, :, 12:], noise[:, :, 12:])  # pure
    for before, after in pairwise(seen):
        noise = noise_of(rngs, (4, 16, 8, 8), torch.device("cpu"))  # fresh for every window
        lower = schedule.add_noise(before["clean"][:, :, 4:], noise[:, :, :12], levels[:, :12])
        torch.testing.assert_close(after["latents"][:, :, :12], lower)
        assert torch.equal(after["latents"][:, :, 12:], noise[:, :, 12:])


def test_the_truth_of_a_window_is_its_own_frames(networks, seen):
    losses = StreamLosses(context_of(networks))
    found = list(losses.predictions(0, *batch_of(losses, 0, [0])))
    (clip,) = losses.source.draw(0, [0]).samples
    for window, start in zip(found, (0, 12, 24), strict=True):
        assert torch.equal(window.target[0], torch.from_numpy(clip.target[start : start + 16]).permute(0, 3, 1, 2))
    assert not torch.equal(seen[0]["motion"], seen[1]["motion"])
    assert torch.equal(seen[0]["motion"][:, 4:], seen[1]["motion"][:, :12])


def test_nothing_of_an_earlier_window_has_a_gradient(networks):
    """A gradient of the last window's loss with respect to its input would have to pass the detached roll-out."""
    losses = StreamLosses(context_of(networks, "stream.gradient_windows=0,1"))
    outputs = losses.losses(0, *batch_of(losses, 0, [0]))
    first = next(outputs).losses["loss"]
    parameter = next(p for p in networks.denoising_unet.parameters() if p.requires_grad)
    kept = torch.autograd.grad(first, parameter, retain_graph=False)[0]  # frees the graph of window 0
    again = torch.autograd.grad(next(outputs).losses["loss"], parameter)[0]  # would fail if it led back there
    assert kept.isfinite().all()
    assert again.isfinite().all()


def test_windows_that_the_clip_does_not_have_are_refused(networks):
    with pytest.raises(InputError, match="windows 0 to 6"):
        StreamLosses(context_of(networks, "stream.gradient_windows=0,7"))


def test_frame_by_frame_decoding_gives_the_same_loss(networks):
    plain = StreamLosses(context_of(networks, "stream.gradient_windows=0"))
    saving = StreamLosses(context_of(networks, "stream.gradient_windows=0", "compute.recompute=true"))
    (one,), (other,) = (list(losses.losses(0, *batch_of(losses, 0, [0]))) for losses in (plain, saving))
    torch.testing.assert_close(one.losses["loss"], other.losses["loss"], rtol=1e-4, atol=0)
    one.losses["loss"].backward()
    plainly = {n: p.grad.clone() for n, p in networks.denoising_unet.named_parameters() if p.grad is not None}
    networks.denoising_unet.zero_grad()
    other.losses["loss"].backward()
    for name, gradient in plainly.items():
        found = networks.denoising_unet.get_parameter(name).grad
        torch.testing.assert_close(found, gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()))
    networks.denoising_unet.zero_grad()


# --- as in use ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "residual"])
@pytest.mark.parametrize(("levels", "step"), [((0, 333, 666, 999), 333), ((0, 1, 2, 3), 1)])
def test_the_clean_latent_follows_from_a_step(prediction, levels: tuple[int, ...], step: int):
    schedule = Schedule(ScheduleConfig(prediction=prediction, levels=levels, step=step))
    at = schedule.timesteps(2)
    sample, predicted = (torch.randn(1, 4, 8, 3, 3, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    made = schedule.step(predicted, sample, at)
    torch.testing.assert_close(schedule.clean(sample, made.previous, at), made.original, rtol=1e-3, atol=1e-3)


def test_the_roll_out_is_the_engines_own(networks, monkeypatch: pytest.MonkeyPatch):
    """Its leaving latents are those that a user's stream gives, and its windows those after the ease-in."""
    left, modes = [], []
    real = Engine.advance

    def watched(self, state, conditioning, noise=None):
        modes.append(torch.is_grad_enabled())
        following, leaving = real(self, state, conditioning, noise)
        left.append(leaving.latents.detach().clone())
        return following, leaving

    monkeypatch.setattr(Engine, "advance", watched)
    losses = StreamLosses(context_of(networks, "stream.keyframe_threshold=inf", form="true"))
    found = list(losses.predictions(0, *batch_of(losses, 0, [0])))
    assert modes == [False] * 3 + [True, False, False, True, False, False, True]
    rolled, engine = list(left), Engine(networks)
    (clip,), (rng,) = losses.source.draw(0, [0])
    state = engine.start(clip.target[0], seed=int(rng.integers(2**31)), keyframe_threshold=float("inf"))
    for call in range(10):
        state, _ = engine.step(state, clip.target[4 * call : 4 * call + 4])
        torch.testing.assert_close(left[10 + call], rolled[call], rtol=1e-4, atol=1e-4)
    for window, start in zip(found, (0, 12, 24), strict=True):
        assert window.clean.shape == (1, 4, 16, 8, 8)
        assert window.clean.requires_grad
        assert torch.equal(window.target[0], torch.from_numpy(clip.target[start : start + 16]).permute(0, 3, 1, 2))
        torch.testing.assert_close(window.clean[:, :, :4], rolled[3 + start // 4], rtol=1e-4, atol=1e-4)


def test_every_frame_in_flight_has_a_gradient(networks):
    losses = StreamLosses(context_of(networks, "stream.gradient_windows=0", form="true"))
    (window,) = losses.predictions(0, *batch_of(losses, 0, [0]))
    parameter = next(p for p in networks.denoising_unet.parameters() if p.requires_grad)
    for chunk in range(4):
        part = window.clean[:, :, 4 * chunk : 4 * chunk + 4].square().mean()
        (gradient,) = torch.autograd.grad(part, parameter, retain_graph=True)
        assert gradient.abs().max() > 0


def test_keyframes_enter_the_bank_while_training(networks, monkeypatch: pytest.MonkeyPatch):
    stored = []
    monkeypatch.setattr(stream, "detached", lambda state: stored.append(state.keyframes) or detached(state))
    losses = StreamLosses(context_of(networks, "stream.keyframe_threshold=0", form="true"))
    list(losses.predictions(0, *batch_of(losses, 0, [0])))
    assert stored == [0, 0, 0, 1, 2, 3, 3, 3, 3, 3]  # from the fourth call on, at most three


def test_several_clips_are_rolled_out_as_each_alone(networks):
    losses = StreamLosses(context_of(networks, "stream.gradient_windows=0", form="true"))
    with torch.no_grad():
        both = losses.held_out([0, 1])["pixel"]
        each = [losses.held_out([row])["pixel"] for row in (0, 1)]
    assert both == pytest.approx(np.mean(each), rel=1e-4)
