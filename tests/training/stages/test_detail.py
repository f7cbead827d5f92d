"""The detail head's task and stage: frames looked for in their portraits, and images compared at several sides."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from personalive.config import DetailConfig
from personalive.errors import InputError
from personalive.models.detail import DetailHead
from personalive.training.losses import PLACE_WEIGHTS, place_weight
from personalive.training.stages.image_level import SCALES, DetailLosses, DistillLosses, compare, finding_errors
from support.toy_run import TOY_DETAIL_SHAPE, batch_of, toy_config, toy_context, toy_networks

FEATURES = 6


class Told(DetailHead):
    """A head that gives the flow it was given."""

    def __init__(self, flow: Tensor) -> None:
        super().__init__(DetailConfig(width=8, blocks=1, blend_width=8), FEATURES)
        self.told = flow

    def flow_residual(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        assert self.told.shape == shift.shape
        return moved, self.told


@pytest.fixture(scope="module")
def stage() -> DetailLosses:
    networks = toy_networks(TOY_DETAIL_SHAPE)
    return DetailLosses(toy_context(toy_config("detail", "images.frames=2"), networks))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- finding ------------------------------------------------------------------------------------------------


def test_a_portrait_is_found_in_itself_without_any_flow(stage: DetailLosses):
    batch, _ = batch_of(stage, 0, [0])
    assert batch.head is not None
    assert batch.reference is not None
    own = dataclasses.replace(
        batch,
        target=batch.reference[:, None].expand_as(batch.target),
        poses=batch.head[:, None].expand(-1, 2, -1),
        flow=torch.zeros_like(batch.flow),
    )
    still = torch.zeros(2, 2, *batch.latent.shape[-2:])
    features = torch.zeros(2, FEATURES, *batch.latent.shape[-2:])
    pixels, flow = finding_errors(Told(still), own, features)
    assert pixels.item() < 1e-3
    assert flow.item() < 1e-6
    lost = finding_errors(Told(still + 0.2), own, features)
    assert lost[0] > 20 * pixels
    assert lost[1] > 0.1


def test_every_place_has_weight_one_in_the_mean_and_the_mouth_more():
    masks = torch.zeros(2, 3, 4, 4)
    masks[0, 0], masks[0, 2, :, :1], masks[1, 1, 0] = 1, 1, 0.5
    weight = place_weight(masks, (4, 4))
    _, face, eyes, mouth = PLACE_WEIGHTS
    assert weight.mean().item() == pytest.approx(1)
    bare = weight[1, 0, 3, 3].item()
    assert (weight[0, 0, :, 1:] / bare).unique().tolist() == pytest.approx([1 + face])
    assert (weight[0, 0, :, 0] / bare).unique().tolist() == pytest.approx([1 + face + mouth])
    assert (weight[1, 0, 0] / bare).unique().tolist() == pytest.approx([1 + eyes / 2])


def test_motion_and_distill_teach_the_flow_and_not_the_blend():
    networks = toy_networks(TOY_DETAIL_SHAPE)
    losses = DistillLosses(toy_context(toy_config("distill"), networks))
    (output,) = losses.losses(0, *batch_of(losses, 0, [0, 1]))
    output.losses["loss"].backward()
    assert networks.detail is not None
    reached = {name for name, p in networks.detail.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in networks.detail.named_parameters() if not name.startswith("blend.")}


# --- the stage ----------------------------------------------------------------------------------------------


def test_a_constant_difference_is_itself_at_any_scale():
    frames, nowhere = noise(2, 3, 16, 16), torch.zeros(2, 3, 4, 4)
    assert compare(frames, frames.clone(), nowhere) == 0
    assert compare(frames + 0.25, frames, nowhere).item() == pytest.approx(0.25, abs=1e-6)


def test_what_evens_out_is_seen_at_the_finest_scale_alone():
    frames, line = noise(1, 3, 16, 16), torch.arange(16)
    board = 0.3 * (1 - 2.0 * ((line[:, None] + line) % 2))
    nowhere = torch.zeros(1, 3, 4, 4)
    assert compare(frames + board, frames, nowhere).item() == pytest.approx(0.3 / SCALES, abs=1e-6)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="no detail head"):
        DetailLosses(toy_context(toy_config("detail")))
