"""Stage 4 of the bundled model: image-level hybrid motion, then the same through several denoising levels.

Letters: B portraits, F driving frames each, C latent channels, h w latent sides, T K motion tokens and width.
Source: paper section 3 (stages 1 and 2), with cross-identity driving from the synthetic ground truth (ours).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from personalive.engine.conditioning import CLIP_MEAN, CLIP_STD
from personalive.engine.schedule import Schedule
from personalive.errors import InputError
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.training.build import standardise_norms
from personalive.training.cache import REFERENCES, FrameCache
from personalive.training.data import RenderedSet
from personalive.training.finding import FLOW_WEIGHT, Finding
from personalive.training.loop import Losses
from personalive.vision.canvas import draw_canvas
from personalive.vision.keypoints import as_held_by, transform_keypoints

MASK_WEIGHTS = (1.0, 6.0, 8.0)  # face, eyes, mouth: on top of 1 everywhere
CROSS_SHARE = 0.5  # of the drivers that are the other person
SECOND_REFERENCE_SHARE = 0.25  # of the steps that show two reference images, as keyframes do
ROLLOUT_FROM = 0.5  # share of the stage after which inputs come from the model's own steps
TOP_SHARE = 0.8  # of the frames before that: at the highest level, where all of the motion is still to be made
STANDARD_PICTURES = 64  # that the image encoder's norms start from
DOUBT = 0.1  # latent error below which the loss is nearly square
FINDING_WEIGHT = 2.0  # of the detail head's task: half as steep for the denoiser's weights as the latents' error
TOKEN_NOISE = 0.03  # added to the motion tokens, a tenth of their spread


def robust(error: Tensor) -> Tensor:
    """Square near zero, absolute value beyond: squares alone would answer every doubt with a blur."""
    return (error.square() + DOUBT**2).sqrt() - DOUBT


def channel_weights(effect: Tensor) -> Tensor:
    """(C,) mean squared change of the image per unit of each latent channel -> (1, C, 1, 1, 1), mean 1.

    The square root lies half-way between counting every channel alike and counting pixels.
    """
    weight = effect.sqrt()
    return (weight / weight.mean())[None, :, None, None, None]


def mask_weights(masks: np.ndarray, side: int, clips: int) -> Tensor:
    """(B*F, 3, g, g) uint8 coverage of face, eyes and mouth, ``clips`` being B -> (B, 1, F, side, side), mean 1."""
    shares = torch.from_numpy(masks).float() / 255
    weight = torch.as_tensor(1 + sum(w * shares[:, i] for i, w in enumerate(MASK_WEIGHTS)))
    cell = side // weight.shape[-1]
    weight = repeat(weight, "(b f) h w -> b 1 f (h p) (w q)", b=clips, p=cell, q=cell)
    return weight / weight.mean()


class Batch(NamedTuple):
    """One step's material."""

    target: Tensor  # (B, C, F, h, w) clean latents
    weight: Tensor  # (B, 1, F, h, w)
    masks: Tensor  # (B*F, 3, g, g) share of face, eyes and mouth in each cell, 0..1
    rows: np.ndarray  # (B*F,) rows of the cache: the frames themselves
    portraits: np.ndarray  # (B*F,) and what they were made from
    whiches: np.ndarray  # (B*F,) which of a person's references that is
    references: list[Tensor]  # (B, C, h, w) each
    entering: Tensor  # (B, C, F, h, w) clean latents of what the frames enter as
    thumbs: Tensor  # (B, 3, s, s), normalised for the image encoder
    canvas: Tensor  # (B*F, 3, S, S)
    motion: Tensor  # (B, F, T, K)


class Attempt(NamedTuple):
    """Outputs of the model for one batch."""

    batch: Batch
    clean: Tensor  # (B, C, F, h, w) predicted clean latents, float32
    levels: Tensor  # (B, F) that they were predicted from
    features: Tensor  # (B*F, C0, h, w) that they were predicted with


class MotionModules(nn.Module):
    """Modules that this stage trains. The motion encoder stays as the stage before left it; its tokens are cached."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.clip, self.reference_unet = networks.clip, networks.reference_unet
        self.denoising_unet, self.pose_guider = networks.denoising_unet, networks.pose_guider
        self.detail = networks.detail


class MotionStage:
    """Weighted error of the predicted clean latent."""

    def __init__(
        self,
        modules: MotionModules,
        networks: Networks,
        data: RenderedSet,
        cache: FrameCache,
        batch: int,
        frames: int,
        rank: int = 0,
    ) -> None:
        self.rank = rank
        self.modules, self.config, self.data, self.cache = modules, networks.config, data, cache
        self.batch, self.frames = batch, frames
        self.tokens, self.clean = cache.known("tokens"), cache.known("latents")
        if data.config.groups < batch:
            raise InputError(
                f"{data.folder}: {data.config.groups} groups are too few for batches of {batch}: render more"
            )
        self.moved = cache.known("moved") if networks.config.entry == "moved" else None
        self.finding = None if networks.detail is None else Finding(networks.detail, data, cache)
        self.schedule = Schedule(networks.config.schedule)
        self.device = next(modules.parameters()).device
        self.channels = channel_weights(cache.known("effect")).to(self.device)

    def __call__(self, step: int, done: float) -> Losses:
        made = self.attempt(step, done)
        error = self.error(made)
        top = made.levels == self.config.schedule.levels[-1]
        found = self.find(made)
        return {
            "loss": error.mean() + found.pop("loss", 0.0),
            "latent": (made.clean - made.batch.target).detach().square().mean(),
            "top": error.detach().mean(dim=(1, 3, 4))[top].mean() if top.any() else error.new_zeros(()),
            **found,
        }

    def attempt(self, step: int, done: float) -> Attempt:
        """Draw a batch and predict its clean latents."""
        rng = np.random.default_rng([step, 4, self.rank])
        batch = self.load(rng)
        noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
        with torch.autocast(self.device.type, torch.bfloat16):
            conditions = self.condition(batch)
            latents, levels = self._inputs(batch, conditions, noise, rng, done)
            unet = self.modules.denoising_unet
            features = unet.features(latents, levels, **conditions)
            prediction = unet.prediction(features, latents.shape[2]).float()
        return Attempt(batch, self.schedule.step(prediction, latents, levels).original, levels, features)

    def find(self, made: Attempt) -> Losses:
        """Term of the detail head's task in the loss, and its parts; empty for a model without one."""
        if self.finding is None:
            return {}
        batch = made.batch
        pixels, flow = self.finding.errors(made.features, batch.rows, batch.portraits, batch.whiches, batch.masks)
        loss = FINDING_WEIGHT * (pixels + FLOW_WEIGHT * flow)
        return {"loss": loss, "found": pixels.detach(), "flow": flow.detach()}

    def error(self, made: Attempt) -> Tensor:
        """Weighted error of the predicted latents, (B, C, F, h, w)."""
        return made.batch.weight * self.channels * robust(made.clean - made.batch.target)

    def standardise(self) -> None:
        """Start the image encoder's norms from training images."""
        rows = np.linspace(0, len(self.cache.thumbs) - 1, STANDARD_PICTURES).astype(int).tolist()
        thumbs = self._thumbs(rows)
        standardise_norms(self.modules.clip, lambda: self.modules.clip(pixel_values=thumbs))

    def load(self, rng: np.random.Generator) -> Batch:
        """Draw people, references and driving frames."""
        config, cache = self.data.config, self.cache
        rows, drivers, masks, portraits, keyframes, whiches = [], [], [], [], [], []
        for g in rng.choice(config.groups, self.batch, replace=False):
            person, which = int(rng.integers(2)), int(rng.integers(REFERENCES))
            portraits.append(cache.reference(g, person, which))
            keyframes.append(cache.index(g, person, int(rng.integers(config.frames))))
            whiches += [which] * self.frames
            for k in rng.choice(config.frames, self.frames, replace=False):
                driver = 1 - person if rng.random() < CROSS_SHARE else person
                rows.append(cache.index(g, person, k))
                drivers.append(cache.index(g, driver, k))
                masks.append(self.data.truth.masks[g, person, k])
        shown = [portraits, keyframes] if rng.random() < SECOND_REFERENCE_SHARE else [portraits]
        references = [self._latents(self.clean, some)[:, :, 0] for some in shown]
        target = self._latents(self.clean, rows)
        entering = references[0][:, :, None].expand_as(target)
        if self.moved is not None:
            entering = self._latents(self.moved, list(zip(rows, whiches, strict=True)))
        return Batch(
            target=target,
            weight=mask_weights(np.stack(masks), target.shape[-1], self.batch).to(self.device),
            masks=torch.from_numpy(np.stack(masks)).to(self.device) / 255,
            rows=np.array(rows),
            portraits=np.repeat(portraits, self.frames),
            whiches=np.array(whiches),
            references=references,
            entering=entering,
            thumbs=self._thumbs(portraits),
            canvas=self._canvas(portraits, rows),
            motion=self._motion(drivers, rng),
        )

    def condition(self, batch: Batch) -> dict:
        """Arguments of the denoising net."""
        B = len(batch.thumbs)
        context = self.modules.clip(pixel_values=batch.thumbs).image_embeds[:, None]
        clean = torch.zeros(B, 1, dtype=torch.long, device=self.device)
        parts = [
            self.modules.denoising_unet.project_reference(self.modules.reference_unet(z, clean, context))
            for z in batch.references
        ]
        kv = {n: KV(*(torch.cat(ts, 1) for ts in zip(*(p[n] for p in parts), strict=True))) for n in parts[0]}
        pose = rearrange(self.modules.pose_guider(batch.canvas), "(b f) c h w -> b c f h w", b=B)
        return {"context": context, "reference": kv, "motion": batch.motion, "pose": pose, "temporal": False}

    def _inputs(
        self, batch: Batch, conditions: dict, noise: torch.Generator, rng: np.random.Generator, done: float
    ) -> tuple[Tensor, Tensor]:
        """Inputs of a perfect model at mixed levels; later those that the model itself makes of the entering noise.

        A deterministic step keeps what it takes for noise. In a frame that entered as the noised portrait that is
        also the difference between portrait and truth, so lower levels still show it, fainter.
        """
        target = batch.target
        B, _, F = target.shape[:3]
        levels = self.config.schedule.levels
        draw = torch.randn(target.shape, generator=noise).to(self.device)
        top = torch.full((B, F), levels[-1], device=self.device)
        sample, current = self.schedule.add_noise(batch.entering, draw, top), top  # as the engine begins a frame
        if done < ROLLOUT_FROM:
            chances = [(1 - TOP_SHARE) / (len(levels) - 1)] * (len(levels) - 1) + [TOP_SHARE]
            picked = torch.from_numpy(rng.choice(levels, (B, F), p=chances)).to(self.device)
            return self.schedule.move(sample, target, current, picked), picked
        with torch.no_grad():
            for _ in range(int(rng.integers(len(levels)))):
                prediction = self.modules.denoising_unet(sample, current, **conditions).float()
                sample = self.schedule.step(prediction, sample, current).previous
                current = current - self.config.schedule.step
        return sample, current

    # --- cache rows to tensors ------------------------------------------------------------------------

    def _latents(self, source: np.ndarray, rows: list[Any]) -> Tensor:
        latents = torch.from_numpy(np.stack([source[row] for row in rows])).float()
        return rearrange(latents.to(self.device), "(b f) c h w -> b c f h w", b=self.batch)

    def _motion(self, drivers: list[int], rng: np.random.Generator) -> Tensor:
        tokens = torch.from_numpy(np.stack([self.tokens[row] for row in drivers])).float()
        tokens += TOKEN_NOISE * torch.from_numpy(rng.standard_normal(tuple(tokens.shape), np.float32))
        return rearrange(tokens.to(self.device), "(b f) t k -> b f t k", b=self.batch)

    def _thumbs(self, rows: list[int]) -> Tensor:
        pixels = torch.from_numpy(np.stack([self.cache.thumbs[row] for row in rows])).to(self.device)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def _canvas(self, references: list[int], rows: list[int]) -> Tensor:
        """The driving pose on the reference's head; both are one person, so place and size are the target's."""
        found = self.cache.pose[torch.tensor(rows)]
        own = self.cache.pose[torch.tensor(references).repeat_interleave(len(rows) // len(references))]
        keypoints = transform_keypoints(as_held_by(own, found)).to(self.device)
        return draw_canvas(keypoints, self.config.pose_guider.canvas_size_px)
