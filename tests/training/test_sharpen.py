"""What the critic adds to stage `motion`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personalive.training.cache import FrameCache
from personalive.training.data import RenderedSet
from personalive.training.loop import World
from personalive.training.motion import MotionModules, MotionStage
from personalive.training.sharpen import (
    BEGIN_STEP,
    FULL_STEP,
    PLACE_WEIGHTS,
    RATIO,
    Adversary,
    LatentCritic,
    SharpenStage,
    judge,
)
from training.conftest import toy_run


@pytest.fixture
def stage(finished) -> SharpenStage:
    """On the weights of a finished run, the critic being new."""
    networks = toy_run(finished.folder).load("vae", "motion_extractor", "motion_encoder", "motion")
    modules = MotionModules(networks).requires_grad_(True)
    data = RenderedSet(finished.folder / "data")
    cache = FrameCache(finished.folder / "cache", data, networks).open()
    size = networks.config.motion_encoder
    critic = LatentCritic(networks.unet_config.in_channels, size.tokens * size.token_width)
    return SharpenStage(MotionStage(modules, networks, data, cache, batch=2, frames=2), Adversary(critic, World()))


def gradient_of(stage: SharpenStage, loss: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, [stage.motion.modules.denoising_unet.conv_out.bias])
    return found


def error_alone(stage: SharpenStage, step: int) -> Tensor:
    made = stage.motion.attempt(step, 0.0)
    return stage.motion.error(made).mean() + stage.motion.find(made)["loss"]


def test_at_first_the_critic_only_learns(stage: SharpenStage):
    before = [p.detach().clone() for p in stage.adversary.parameters]
    losses, alone = stage(BEGIN_STEP, 0.0), error_alone(stage, BEGIN_STEP)
    torch.testing.assert_close(losses["loss"], alone)
    torch.testing.assert_close(gradient_of(stage, losses["loss"]), gradient_of(stage, alone))
    assert any(not torch.equal(old, new) for old, new in zip(before, stage.adversary.parameters, strict=True))
    assert losses["critic"] > 0


def test_later_it_pulls_and_the_loss_stays_the_error(stage: SharpenStage):
    losses, alone = stage(FULL_STEP, 0.0), error_alone(stage, FULL_STEP)
    torch.testing.assert_close(losses["loss"], alone)
    assert losses["error"] < losses["loss"]
    pulled, own = gradient_of(stage, losses["loss"]), gradient_of(stage, alone)
    assert (pulled - own).norm() > 0.01 * own.norm()


def test_the_pull_grows_to_its_full_share(stage: SharpenStage, monkeypatch: pytest.MonkeyPatch):
    asked: list[float] = []

    def gradient(judged, fake: Tensor, other: Tensor, ratio: float) -> Tensor:
        asked.append(ratio)
        assert other.shape == fake.shape == judged.real.shape
        return torch.zeros_like(fake)

    monkeypatch.setattr(stage.adversary, "gradient", gradient)
    for step in (BEGIN_STEP - 1, BEGIN_STEP, (BEGIN_STEP + FULL_STEP) // 2, FULL_STEP, 10 * FULL_STEP):
        stage(step, 0.0)
    assert asked == pytest.approx([RATIO / 2, RATIO, RATIO])


def test_the_face_alone_is_judged_and_the_mouth_most(stage: SharpenStage):
    batch = stage.motion.attempt(3, 0.0).batch
    masks = torch.zeros_like(batch.masks)
    per_place = masks.shape[-1] // judge(batch).weight.shape[-1]
    masks[:, 0, : 2 * per_place], masks[:, 2, :per_place] = 1, 1  # two rows of face, the first of them mouth
    weight = judge(batch._replace(masks=masks)).weight
    first, second, *rest = weight.mean(dim=2)[0].tolist()
    face, _, mouth = PLACE_WEIGHTS
    assert weight.mean().item() == pytest.approx(1)
    assert first / second == pytest.approx((face + mouth) / face)
    assert not any(rest)


def test_nothing_is_judged_where_no_face_is_seen(stage: SharpenStage):
    batch = stage.motion.attempt(3, 0.0).batch
    assert not judge(batch._replace(masks=torch.zeros_like(batch.masks))).weight.any()
