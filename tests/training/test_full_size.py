"""The released shapes with the full preset: one real update of every stage on a CPU, at reduced resolution.

Needs 14 GB of memory and minutes: run by hand with ``-m full``.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.layout import parts_of
from personalive.checkpoints.networks import build_part, unet_to_diffusers
from personalive.config import PoseGuiderConfig
from personalive.models.networks import Networks
from personalive.training.batch import Compute
from personalive.training.distributed import ProcessGroup
from personalive.training.loop import Loop
from personalive.training.overrides import resolve
from personalive.training.parameters import named_parameters
from personalive.training.presets import PAPER_STAGES, Stage
from personalive.training.shapes import SHAPES
from personalive.training.stages.base import Context
from support.stated import stated
from support.toy_set import ToySet

SIDE_PX = 128  # latents of 16 x 16, halved three times: a lone token would have nothing to choose among
# The published numbers but for the size of a batch, what is dropped by chance, and the far start of the game.
REDUCED = (
    "steps=1",
    "batch=1",
    "accumulate=1",
    "optimiser.lr=0.05",  # seen in bfloat16
    "optimiser.clip_norm=1e30",  # at 1, shared by so many values, the gradients of some are below AdamW's epsilon
    "data.workers=0",
    "drop.reference=0",
    "drop.pose=0",
    "drop.motion=0",
    "discriminator.generator_from_step=0",
    "discriminator.train_from_step=0",
    "stream.frames=16",
    "stream.gradient_windows=0",
    "journal.tensorboard=false",
    "journal.held_out_samples=0",
    "journal.sheet_rows=0",
)


_AdamW = torch.optim.AdamW


class ForgetfulAdamW(_AdamW):
    """AdamW's first update, one tensor after another, without keeping moments: they would take 17 GB more."""

    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    settings = {k: group[k] for k in ("lr", "betas", "weight_decay")}
                    _AdamW([parameter], **settings).step()
                    parameter.grad = None


def full_networks() -> Networks:
    """The released shapes with weights of a plausible size, 6 GB in bfloat16; no tensor is zero."""
    guider = PoseGuiderConfig(canvas_size_px=SIDE_PX)
    shape = SHAPES["full"]
    model, unet = dataclasses.replace(shape.model, image_size_px=SIDE_PX, pose_guider=guider), shape.unet
    folder = CheckpointFolder(
        root=Path("full"), name="full", config=model, unet=unet_to_diffusers(unet), vae=shape.vae, clip=shape.clip
    )
    buffer = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    parts: dict[str, Any] = {part: filled(build_part(folder, part), buffer) for part in parts_of(model)}
    parts["motion_extractor"].float()  # as in training, where it never computes in less
    hold_in_the_image(parts["motion_extractor"])
    return Networks(config=model, unet_config=unet, **parts)


@torch.no_grad()
def hold_in_the_image(extractor: Any) -> None:
    """Heads in the middle and small: with keypoints outside, canvases would be empty and teach nothing."""
    for head, value in ((extractor.detector.fc_t, 0.0), (extractor.detector.fc_scale, 0.3)):
        head.weight.zero_()
        head.bias.fill_(value)


def filled(module: nn.Module, buffer: torch.Tensor) -> nn.Module:
    """Values for everything that was built without, from one buffer over and over: drawing them takes minutes."""
    state = {}
    for key, tensor in module.state_dict().items():
        values = tensor
        if tensor.is_meta:
            values = buffer.repeat(-(-tensor.numel() // len(buffer)))[: tensor.numel()].view(tensor.shape)
            if tensor.ndim >= 2:
                values = values / math.sqrt(tensor[0].numel())
            elif key.endswith(("weight", "running_var")):
                values = 1 + 0.1 * values.clamp(-3, 3)
            else:
                values = 0.05 * values
        large = tensor.ndim >= 2 and tensor.is_floating_point()  # norms want their few values in float32
        state[key] = values.to(torch.bfloat16) if large else values
    module.load_state_dict(state, assign=True)
    return module.eval()


def sums(networks: Networks) -> dict[str, float]:
    """One number per parameter that any update changes."""
    return {n: p.detach().float().abs().sum().item() for n, p in named_parameters(networks).items()}


@pytest.mark.full
@pytest.mark.parametrize("stage", PAPER_STAGES)
def test_one_update_of_the_released_shapes(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.optim, "AdamW", ForgetfulAdamW if stage != "stream" else _AdamW)
    networks = full_networks()
    before, config = sums(networks), resolve(stage, "full", pairs=REDUCED)
    assert config.compute.recompute
    compute = Compute(torch.device("cpu"), torch.bfloat16, config.compute.recompute)
    sets = ToySet(SIDE_PX), ToySet(SIDE_PX)
    context = Context(config, networks, compute, *sets, ProcessGroup())
    loop = Loop(context, tmp_path, lambda now: None, lambda line: None)
    wanted = stated(set(before), stage, last=3)
    assert set(loop.networks.parameters) == wanted
    values = loop._step(0, loop.stage.batches(0, tmp_path, lambda now: None))
    assert all(math.isfinite(value) for value in values.values())
    after = sums(networks)
    changed = {name for name in after if after[name] != before[name]}
    assert changed - wanted == set()
    assert len(wanted - changed) == 0, f"{len(wanted - changed)} of {len(wanted)}: {sorted(wanted - changed)[:5]}"
