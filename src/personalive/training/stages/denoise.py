"""The denoiser outside a stream: the only place of training that calls it. What rolls out as in use goes through
``Engine.advance`` instead.

Letters: B samples, F frames, C latent channels, h w latent sides, N tokens of a block, T K motion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from personalive.engine.schedule import Schedule
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.training.batch import Batch
from personalive.training.config import TrainConfig
from personalive.training.data.augment import augment_faces
from personalive.vision.canvas import draw_canvas


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
    networks: Networks,
    batch: Batch,
    rngs: Sequence[np.random.Generator],
    config: TrainConfig | None,
    *,
    recompute: bool,
) -> Conditions:
    """Run the conditioning networks, with gradients where they train.

    Args:
        config: strengths of augmentation and dropout; None for neither.
    """
    count = batch.target.shape[1]
    kept = np.ones((len(rngs), 3), bool)
    faces = batch.faces.flatten(0, 1)
    if config is not None:
        drop = config.drop
        faces = augment_faces(faces, rngs, config.augment, frames=count)
        kept = np.stack([rng.random(3) >= (drop.reference, drop.pose, drop.motion) for rng in rngs])
    shown = tuple(kept[:, 0].tolist())
    motion = rearrange(networks.motion_encoder(faces), "(b f) t k -> b f t k", f=count)
    canvas = draw_canvas(batch.keypoints.flatten(0, 1), networks.config.pose_guider.canvas_size_px)
    pose = rearrange(networks.pose_guider(canvas), "(b f) c h w -> b c f h w", f=count)
    keep_pose, keep_motion = torch.from_numpy(kept[:, 1:].T).to(batch.latent.device).float()
    return Conditions(
        context=batch.context,
        motion=motion * keep_motion[:, None, None, None],
        pose=pose * keep_pose[:, None, None, None, None],
        reference=_reference(networks, batch, rngs, shown, config, recompute) if any(shown) else {},
        shown=shown,
    )


class Predicted(NamedTuple):
    """Result of one pass."""

    clean: Tensor  # (B, C, F, h, w) float32
    features: Tensor  # (B*F, C0, h, w) that it was read from


def predict_clean(
    networks: Networks,
    schedule: Schedule,
    latents: Tensor,
    levels: Tensor,
    conditions: Conditions,
    *,
    temporal: bool,
    recompute: bool = False,
) -> Predicted:
    """Predict clean latents from (B, C, F, h, w) at (B, F) timesteps.

    Samples without their reference attend to themselves alone, so they make a call of their own.
    """
    unet, count = networks.denoising_unet, latents.shape[2]
    groups = [[i for i, one in enumerate(conditions.shown) if one is shown] for shown in (True, False)]
    predictions, features = [], []
    for rows in filter(None, groups):
        whole = len(rows) == len(latents)
        c = conditions if whole else conditions.take(rows)
        found = unet.features(
            latents if whole else latents[rows],
            levels if whole else levels[rows],
            context=c.context,
            motion=c.motion,
            pose=c.pose,
            reference=c.reference or None,
            temporal=temporal,
            recompute=recompute,
        )
        predictions.append(unet.prediction(found, count).float())
        features.append(rearrange(found, "(b f) c h w -> b f c h w", f=count))
    order = np.argsort([row for rows in groups for row in rows]).tolist()
    prediction = predictions[0] if len(predictions) == 1 else torch.cat(predictions)[order]
    feature = features[0] if len(features) == 1 else torch.cat(features)[order]
    return Predicted(schedule.step(prediction, latents, levels).original, feature.flatten(0, 1))


def _reference(
    networks: Networks,
    batch: Batch,
    rngs: Sequence[np.random.Generator],
    shown: tuple[bool, ...],
    config: TrainConfig | None,
    recompute: bool,
) -> dict[str, KV]:
    rows = [i for i, one in enumerate(shown) if one]
    own = [rngs[row] for row in rows]
    images = [batch.portrait[rows]]
    if config is not None and config.images.second_reference and own[0].random() < config.images.second_reference:
        frames = [int(rng.integers(batch.latent.shape[2])) for rng in own]
        images.append(batch.latent[rows, :, frames])  # as a keyframe, a frame that the model could have made
    parts = []
    for image in images:
        clean = torch.zeros(len(rows), 1, dtype=torch.long, device=image.device)
        features = networks.reference_unet(image, clean, batch.context[rows], recompute=recompute)
        if config is not None and config.drop.reference_tokens > 0:
            features = {name: keep_tokens(x, own, config.drop.reference_tokens) for name, x in features.items()}
        parts.append(networks.denoising_unet.project_reference(features))
    if len(parts) == 1:
        return parts[0]
    return {n: KV(*(torch.cat(both, dim=1) for both in zip(*(p[n] for p in parts), strict=True))) for n in parts[0]}


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
