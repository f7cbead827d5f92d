"""Base of the stages that call the denoiser outside a stream: the only place of training that does. What rolls out as
in use goes through ``Engine.advance`` instead.

Letters: B samples, F frames, C latent channels, h w latent sides, N tokens of a block, T K motion tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from personalive.models.attention import KV
from personalive.training.batch import Batch
from personalive.training.data.augment import augment_faces
from personalive.training.losses import LatentLoss, PixelLoss, channel_effect
from personalive.training.stages.base import Context, Rngs, StageLosses
from personalive.vision.canvas import draw_canvas

EFFECT_FRAMES = 4  # held-out frames that the effect of latent channels is measured on


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """Conditioning of B samples."""

    context: Tensor  # (B, 1, D)
    motion: Tensor  # (B, F, T, K)
    pose: Tensor  # (B, C0, F, h, w)
    reference: dict[str, KV]  # by block, rows of those samples that are shown their reference; {} if none is
    shown: tuple[bool, ...]  # B: whether the sample sees its reference

    def take(self, rows: list[int]) -> Conditions:
        """The same for some of the samples."""
        if len(rows) == len(self.shown):
            return self
        places = [sum(self.shown[:row]) for row in rows if self.shown[row]]
        reference = {n: KV(kv.key[places], kv.value[places]) for n, kv in self.reference.items()} if places else {}
        shown = tuple(self.shown[row] for row in rows)
        return Conditions(self.context[rows], self.motion[rows], self.pose[rows], reference, shown)

    def window(self, frames: slice) -> Conditions:
        """The same for some of the frames."""
        return dataclasses.replace(self, motion=self.motion[:, frames], pose=self.pose[:, :, frames])


class Predicted(NamedTuple):
    """Result of one pass."""

    clean: Tensor  # (B, C, F, h, w) float32
    features: Tensor  # (B*F, C0, h, w) that it was read from


class DenoiserLosses(StageLosses[Batch]):
    """Conditions and predictions of the denoiser, and the loss of what it predicts."""

    kind = Batch

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.drop, self.second_reference = self.config.drop, self.config.images.second_reference

    def choose_loss(self) -> PixelLoss | LatentLoss:
        """The loss of the configured domain: decoded pixels (paper), or latents (ours)."""
        pixels = self.config.loss.domain == "pixels"
        return PixelLoss(self.config, self.networks, self.compute) if pixels else self.latent_loss()

    def latent_loss(self) -> LatentLoss:
        """Loss of clean latents, by what their channels do to an image where that is wanted."""
        effect = None
        if self.config.loss.by_channel:
            effect = channel_effect(self.networks, self.compute, self.effect_latents())
        return LatentLoss(self.config, self.networks, self.compute, effect)

    def effect_latents(self) -> Tensor:
        """(N, C, h, w) held-out latents."""
        return self.held_out_batch(range(EFFECT_FRAMES))[0].latent[:, :, 0]

    def condition(self, batch: Batch, rngs: Rngs, *, train: bool) -> Conditions:
        """Run the conditioning networks, with gradients where they train; augment and drop in training alone."""
        networks, count = self.networks, batch.target.shape[1]
        kept = np.ones((len(rngs), 3), bool)
        faces = batch.faces.flatten(0, 1)
        if train:
            drop = self.drop
            faces = augment_faces(faces, rngs, self.config.augment, frames=count)
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
            reference=self._reference(batch, rngs, shown, train) if any(shown) else {},
            shown=shown,
        )

    def predict(
        self, latents: Tensor, levels: Tensor, conditions: Conditions, *, temporal: bool = False
    ) -> Predicted:
        """Predict clean latents from (B, C, F, h, w) at (B, F) timesteps.

        Samples without their reference attend to themselves alone, so they make a call of their own.
        """
        unet, count, order = self.networks.denoising_unet, latents.shape[2], []
        predictions, features = [], []
        for shown in (True, False):
            rows = [i for i, one in enumerate(conditions.shown) if one is shown]
            if not rows:
                continue
            c = conditions.take(rows)
            found = unet.features(
                latents[rows],
                levels[rows],
                context=c.context,
                motion=c.motion,
                pose=c.pose,
                reference=c.reference or None,
                temporal=temporal,
                recompute=self.compute.recompute,
            )
            order += rows
            predictions.append(unet.prediction(found, count).float())
            features.append(rearrange(found, "(b f) c h w -> b f c h w", f=count))
        back = np.argsort(order).tolist()
        prediction, feature = (torch.cat(parts)[back] for parts in (predictions, features))
        return Predicted(self.schedule.step(prediction, latents, levels).original, feature.flatten(0, 1))

    def _reference(self, batch: Batch, rngs: Rngs, shown: tuple[bool, ...], train: bool) -> dict[str, KV]:
        rows = [i for i, one in enumerate(shown) if one]
        own, dropped = [rngs[row] for row in rows], self.drop.reference_tokens if train else 0.0
        images = [batch.portrait[rows]]
        if train and self.second_reference and own[0].random() < self.second_reference:
            frames = [int(rng.integers(batch.latent.shape[2])) for rng in own]
            images.append(batch.latent[rows, :, frames])  # as a keyframe, a frame that the model could have made
        parts = []
        for image in images:
            clean = torch.zeros(len(rows), 1, dtype=torch.long, device=image.device)
            context, recompute = batch.context[rows], self.compute.recompute
            features = self.networks.reference_unet(image, clean, context, recompute=recompute)
            if dropped:
                features = {name: keep_tokens(x, own, dropped) for name, x in features.items()}
            parts.append(self.networks.denoising_unet.project_reference(features))
        if len(parts) == 1:
            return parts[0]
        return {n: KV(*(torch.cat(both, 1) for both in zip(*(p[n] for p in parts), strict=True))) for n in parts[0]}


def frames_of(x: Tensor) -> Tensor:
    """(B, C, F, h, w) -> (B*F, C, h, w)."""
    return rearrange(x, "b c f h w -> (b f) c h w")


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
