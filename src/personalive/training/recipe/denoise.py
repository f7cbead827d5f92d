"""The denoiser outside a stream: the only place of the recipe that calls it. What rolls out as in use goes
through ``Engine.advance`` instead.

Letters: B samples, F frames, C latent channels, h w latent sides, N tokens of a block, T K motion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from personalive.engine.schedule import Schedule
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.training.recipe.material import Material
from personalive.training.recipe.settings import DropConfig


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """Conditioning of B samples."""

    context: Tensor  # (B, 1, D)
    motion: Tensor  # (B, F, T, K)
    pose: Tensor  # (B, C0, F, h, w)
    reference: dict[str, KV]  # by block, rows of those samples that are shown their reference; {} if none is
    shown: tuple[bool, ...]  # B: whether the sample sees its reference

    def take(self, rows: Sequence[int]) -> Conditions:
        """The same for some of the samples."""
        places = [sum(self.shown[:row]) for row in rows if self.shown[row]]
        reference = {n: KV(kv.key[places], kv.value[places]) for n, kv in self.reference.items()} if places else {}
        return Conditions(
            self.context[list(rows)],
            self.motion[list(rows)],
            self.pose[list(rows)],
            reference,
            tuple(self.shown[row] for row in rows),
        )


def condition(
    networks: Networks, material: Material, drop: DropConfig | None, *, recompute: bool = False
) -> Conditions:
    """Run the conditioning networks, with gradients where they train; ``drop`` None shows everything."""
    count = material.target.shape[1]
    kept = np.ones((len(material.rngs), 3), bool)
    if drop is not None:
        kept = np.stack([rng.random(3) >= (drop.reference, drop.pose, drop.motion) for rng in material.rngs])
    shown = tuple(kept[:, 0].tolist())
    motion = rearrange(networks.motion_encoder(material.faces), "(b f) t k -> b f t k", f=count)
    pose = rearrange(networks.pose_guider(material.canvas), "(b f) c h w -> b c f h w", f=count)
    keep_pose, keep_motion = torch.from_numpy(kept[:, 1:].T).to(material.target.device).float()
    return Conditions(
        context=material.context,
        motion=motion * keep_motion[:, None, None, None],
        pose=pose * keep_pose[:, None, None, None, None],
        reference=_reference(networks, material, shown, drop, recompute) if any(shown) else {},
        shown=shown,
    )


def predict_clean(
    networks: Networks,
    schedule: Schedule,
    latents: Tensor,
    levels: Tensor,
    conditions: Conditions,
    *,
    temporal: bool,
    recompute: bool = False,
) -> Tensor:
    """(B, C, F, h, w) at (B, F) timesteps -> predicted clean latents, float32.

    Samples without their reference attend to themselves alone, so they make a call of their own.
    """
    groups = [[i for i, one in enumerate(conditions.shown) if one is shown] for shown in (True, False)]
    parts = []
    for rows in filter(None, groups):
        whole = len(rows) == len(latents)
        c = conditions if whole else conditions.take(rows)
        prediction = networks.denoising_unet(
            latents if whole else latents[rows],
            levels if whole else levels[rows],
            context=c.context,
            motion=c.motion,
            pose=c.pose,
            reference=c.reference or None,
            temporal=temporal,
            recompute=recompute,
        )
        parts.append(prediction.float())
    order = np.argsort([row for rows in groups for row in rows])
    prediction = parts[0] if len(parts) == 1 else torch.cat(parts)[order.tolist()]
    return schedule.step(prediction, latents, levels).original


def _reference(
    networks: Networks, material: Material, shown: tuple[bool, ...], drop: DropConfig | None, recompute: bool
) -> dict[str, KV]:
    rows = [i for i, one in enumerate(shown) if one]
    clean = torch.zeros(len(rows), 1, dtype=torch.long, device=material.portrait.device)
    features = networks.reference_unet(material.portrait[rows], clean, material.context[rows], recompute=recompute)
    if drop is not None and drop.reference_tokens > 0:
        rngs = [material.rngs[row] for row in rows]
        features = {name: keep_tokens(x, rngs, drop.reference_tokens) for name, x in features.items()}
    return networks.denoising_unet.project_reference(features)


def keep_tokens(tokens: Tensor, rngs: Sequence[np.random.Generator], dropped: float) -> Tensor:
    """(B, N, C) without a share of its tokens, chosen anew for each sample (paper: 30 %)."""
    count = max(1, tokens.shape[1] - round(dropped * tokens.shape[1]))
    index = np.stack([rng.permutation(tokens.shape[1])[:count] for rng in rngs])
    places = torch.from_numpy(index).to(tokens.device)[:, :, None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, places)


def noise_of(rngs: Sequence[np.random.Generator], shape: Sequence[int], device: torch.device) -> Tensor:
    """Normal noise (B, *shape), each sample's from its own generator; drawn on the CPU, so equal on all devices."""
    drawn = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(rng.integers(2**62)))) for rng in rngs
    ]
    return torch.stack(drawn).to(device)
