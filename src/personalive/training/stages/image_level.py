"""Image-level stages, frames without the temporal modules: ``motion``, ``distill`` and ``detail``.

``motion`` (paper, stage 1) is one denoising step from a random level. ``distill`` (paper, stage 2) has no teacher:
the model runs its own few steps from noise, and the last one is corrected by the truth. ``detail`` (ours) trains the
detail head alone, on frames that the model itself made and decoded: where their content is in the portrait, and how
far to trust the pixels found there, by the error of the blended image at three sides. In motion and distill the head
learns with the denoiser to find the content.

Letters: B samples, F frames each, N = B*F, C latent channels, C0 features, h w latent sides, S image side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from personalive.errors import InputError
from personalive.models.detail import HALVING, DetailHead, find, moved_portrait
from personalive.training.batch import Batch, decode, signed, unpack_poses
from personalive.training.data.sets import Pair
from personalive.training.discriminator import SCORE_SIDE, Judged
from personalive.training.log import page
from personalive.training.losses import LatentLoss, Output, place_weight
from personalive.training.stages.base import Context, Rngs
from personalive.training.stages.denoise import Conditions, DenoiserLosses, Predicted, frames_of, noise_of
from personalive.vision.keypoints import HeadPose
from personalive.vision.resize import tensor_to_frames
from personalive.vision.warps import add_flow, sample

JUDGED_WEIGHTS = (0.0, 1.0, 2.0, 4.0)  # elsewhere, face, eyes, mouth: what the discriminator of latents judges
FLOW_WEIGHT = 3.0  # of the flow's error in half image sides, beside the pixels' in -1..1
ROBUST_FROM = 0.004  # half image sides below which the flow's error is nearly square
FOUND_WEIGHT = 0.5  # of the found pixels' own error: where the blend shuns them they still have to learn
SCALES = 3  # sides at which images are compared, each half of the one before


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """Outputs of the model for a batch."""

    batch: Batch
    conditions: Conditions
    predicted: Predicted
    levels: Tensor  # (B, F) timesteps that they were predicted from

    @property
    def masks(self) -> Tensor:
        """(N, 3, G, G) in [0, 1]."""
        return self.batch.masks.flatten(0, 1).float()


class ImageLevel(DenoiserLosses):
    """Batches, entering frames and images of the three stages."""

    def __init__(self, context: Context, *, inference_form: bool) -> None:
        """``inference_form``: heads are placed and frames begun as in use, not as published."""
        super().__init__(context)
        self.inference_form, self.levels = inference_form, self.networks.config.schedule.levels
        images = self.config.images
        if images.frames > 1:
            self.clip = images.frames, images.frame_stride

    def make(self, samples: Sequence[Pair]) -> Batch:
        """See ``BatchMaker.make``."""
        return self.context.maker.make(samples, follow=self.inference_form)

    def with_detail(self, output: Output, made: Attempt) -> Output:
        """The output with the detail head's task, for a model that has one."""
        if self.networks.detail is None or not self.config.loss.detail:
            return output
        with self.compute.autocast():
            pixels, flow = finding_errors(self.networks.detail, made.batch, made.predicted.features)
        loss = output.losses["loss"] + self.config.loss.detail * (pixels + flow)
        return Output({**output.losses, "loss": loss, "found": pixels, "flow": flow}, output.judged)

    def entering(self, batch: Batch, rngs: Rngs) -> tuple[Tensor, Tensor]:
        """Frames as a stream begins them: (B, C, F, h, w) noised portraits, and their (B, F) timesteps."""
        top = self.at(self.levels[-1], batch)
        noise = noise_of(rngs, batch.latent.shape[1:], self.compute.device)
        return self.schedule.add_noise(batch.entering, noise, top), top

    def at(self, level: int, batch: Batch) -> Tensor:
        """(B, F) equal timesteps."""
        return torch.full(batch.target.shape[:2], level, device=self.compute.device)

    def sheet(self, rows: int) -> np.ndarray:
        """Reference, driver's face, truth, and what all denoising steps make of it, one sample per row."""
        shown = []
        for row in range(rows):
            batch, rngs = self.held_out_batch([row])
            with self.compute.autocast():
                made = decode(self.networks, self.generate(batch, rngs)[:, :, 0], recompute=False)
                portrait = decode(self.networks, batch.portrait, recompute=False)
            images = (portrait, batch.faces[:, 0], signed(batch.target[:, 0]), made)
            shown.append([tensor_to_frames(image, "signed")[0] for image in images])
        return page(shown)

    def generate(self, batch: Batch, rngs: Rngs) -> Tensor:
        """All denoising steps of a stream on single frames: (B, C, F, h, w) clean latents."""
        conditions = self.condition(batch, rngs, train=False)
        sample, _ = self.entering(batch, rngs)
        clean = sample
        for level in reversed(self.levels):
            at = self.at(level, batch)
            clean = self.predict(sample, at, conditions).clean
            lower = (at - self.schedule.config.step).clamp(min=self.levels[0])
            sample = self.schedule.move(sample, clean, at, lower)
        return clean


class MotionLosses(ImageLevel):
    """Error of the predicted clean latent, whole and inside the boxes of face, eyes and mouth."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, inference_form=context.config.motion.inference_form)
        self.loss = self.latent_loss()

    def losses(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Output]:
        """Errors at the levels that ``noised`` draws."""
        with self.compute.autocast():
            conditions = self.condition(batch, rngs, train=step is not None)
            latents, levels = self.noised(batch, rngs)
            made = Attempt(batch, conditions, self.predict(latents, levels, conditions), levels)
        errors = self.loss.errors(frames_of(made.predicted.clean), frames_of(batch.latent), made.masks)
        parts = {"latent": errors.whole, "face": errors.face, "eyes_and_mouth": errors.eyes_and_mouth}
        yield self.with_detail(Output({"loss": errors.weighted(self.config.loss), **parts}), made)

    def noised(self, batch: Batch, rngs: Rngs) -> tuple[Tensor, Tensor]:
        """Inputs of the denoiser: (B, C, F, h, w) and their (B, F) timesteps.

        Published: the truth with noise of a uniform timestep below one past the highest level, part of which
        each channel shares. Inference form: where a stream that began with the noised portrait would be at one
        of the model's levels if it had predicted the truth so far.
        """
        device, count = self.compute.device, batch.target.shape[1]
        if self.inference_form:
            levels = self._levels(rngs, count).to(device)
            sample, top = self.entering(batch, rngs)
            return self.schedule.move(sample, batch.latent, top, levels), levels
        picked = np.stack([rng.integers(self.levels[-1] + 1, size=count) for rng in rngs])
        levels = torch.from_numpy(picked).to(device)
        noise = noise_of(rngs, batch.latent.shape[1:], device)
        shared = noise_of(rngs, (batch.latent.shape[1], 1, 1, 1), device)
        noise = noise + self.config.motion.noise_offset * shared
        return self.schedule.add_noise(batch.latent, noise, levels), levels

    def _levels(self, rngs: Rngs, count: int) -> Tensor:
        """(B, F) levels: the highest, where all of the motion is still to be made, by its own share."""
        top, others = self.config.motion.top_share, len(self.levels) - 1
        chances = [(1 - top) / others] * others + [top] if others else [1.0]
        return torch.from_numpy(np.stack([rng.choice(self.levels, size=count, p=chances) for rng in rngs]))


class Rollout(ImageLevel):
    """A random number of steps from noise; only the last one carries a gradient."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, inference_form=context.config.distill.inference_form)

    def attempt(self, step: int | None, batch: Batch, rngs: Rngs) -> Attempt:
        """Result of the model for a batch after as many steps as each sample draws."""
        steps = [1 + int(rng.integers(len(self.levels))) for rng in rngs]
        with self.compute.autocast():
            conditions = self.condition(batch, rngs, train=step is not None)
            with torch.no_grad():
                sample, levels = self.roll(batch, rngs, conditions, steps)
            return Attempt(batch, conditions, self.predict(sample, levels, conditions), levels)

    def roll(self, batch: Batch, rngs: Rngs, conditions: Conditions, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All steps of each sample but its last: (B, C, F, h, w) and the (B, F) timesteps of the last step.

        Published: pure noise at the highest level, and between steps the predicted clean latent gets fresh noise of
        the next level. Inference form: the noised portrait, which follows the deterministic path.
        """
        if self.inference_form:
            sample, levels = self.entering(batch, rngs)
        else:
            sample = noise_of(rngs, batch.latent.shape[1:], self.compute.device)
            levels = self.at(self.levels[-1], batch)
        for done in range(1, max(steps)):
            rows = [row for row, count in enumerate(steps) if count > done]
            clean = self.predict(sample[rows], levels[rows], conditions.take(rows)).clean
            lower = self.at(self.levels[-1 - done], batch)[rows]
            if self.inference_form:
                sample[rows] = self.schedule.move(sample[rows], clean, levels[rows], lower)
            else:
                noise = noise_of([rngs[row] for row in rows], sample.shape[1:], sample.device)
                sample[rows] = self.schedule.add_noise(clean, noise, lower)
            levels[rows] = lower
        return sample, levels


class DistillLosses(Rollout):
    """Losses of the decoded pixels (paper), or of the latents (ours)."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.loss = self.choose_loss()
        if self.config.loss.adversarial:
            self.adversary = self.loss

    def losses(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Output]:
        """One output per step."""
        made = self.attempt(step, batch, rngs)
        clean, masks = frames_of(made.predicted.clean), made.masks
        if isinstance(self.loss, LatentLoss):
            output = self.loss.output(clean, judged(batch, made.conditions), masks, step)
        else:
            output = self.loss.output(clean, batch.target.flatten(0, 1), masks, made.levels.flatten(), step)
        yield self.with_detail(output, made)


class DetailLosses(Rollout):
    """Weighted errors of the blended frames, and of the pixels found for them."""

    def __init__(self, context: Context) -> None:
        """
        Raises:
            InputError: a model without a detail head.
        """
        super().__init__(context)
        if self.networks.detail is None:
            raise InputError("stage detail: this model has no detail head; leave the stage out")
        self.head = self.networks.detail

    def losses(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Output]:
        """One output per step."""
        with torch.no_grad():
            made = self.attempt(step, batch, rngs)
            with self.compute.autocast():
                decoded = decode(self.networks, frames_of(made.predicted.clean), recompute=False)
        frames, masks = signed(batch.target.flatten(0, 1)), made.masks
        portraits, source, target = finding_inputs(batch)
        with self.compute.autocast():
            found, hidden = find(self.head, made.predicted.features, portraits, source, target)
            trust = self.head.blend_mask(decoded, found, hidden)
        error = compare(decoded + trust * (found - decoded), frames, masks)
        found_error = compare(found, frames, masks)
        measured = {"found": found_error, "decoded": compare(decoded, frames, masks), "trust": trust.mean()}
        yield Output({"loss": error + FOUND_WEIGHT * found_error, "blended": error, **measured})


def judged(batch: Batch, conditions: Conditions) -> Judged:
    """A batch as the discriminator of latents sees it."""
    height, width = batch.latent.shape[-2:]
    size = (height // SCORE_SIDE, width // SCORE_SIDE)
    return Judged(
        real=frames_of(batch.latent),
        entering=frames_of(batch.entering),
        motion=rearrange(conditions.motion.detach().float(), "b f t k -> (b f) (t k)"),
        weight=place_weight(batch.masks.flatten(0, 1).float(), size, JUDGED_WEIGHTS)[:, 0],
    )


# --- the detail head ----------------------------------------------------------------------------------------


def finding_errors(head: DetailHead, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean weighted errors of the found pixels (-1..1) and, times its weight, of the flow (half image sides).

    The pixels are the portrait's where the flow looks for them, against the frame's. The flow is compared with
    optical flow from the frame to the portrait moved by geometry, which reaches further than pixels do.

    Args:
        features: (N, C0, h, w) of the batch's frames, one after another.
    """
    assert batch.flow is not None
    portraits, source, target = finding_inputs(batch)
    frames = F.avg_pool2d(signed(batch.target.flatten(0, 1)), HALVING)
    shown = F.avg_pool2d(portraits, HALVING)
    field, moved, shift = moved_portrait(shown, source, target, features.shape[-1])
    _, flow = head.flow_residual(features, moved.to(features.dtype), shift.to(features.dtype))
    missed = (flow - batch.flow.flatten(0, 1)).square().sum(dim=1, keepdim=True)
    missed = (missed + ROBUST_FROM**2).sqrt() - ROBUST_FROM
    pixels = (sample(shown, add_flow(field, flow)) - frames).abs()
    masks = batch.masks.flatten(0, 1).float()
    errors = [(place_weight(masks, error.shape[-2:]) * error).mean() for error in (pixels, missed)]
    return errors[0], FLOW_WEIGHT * errors[1]


def finding_inputs(batch: Batch) -> tuple[Tensor, HeadPose, HeadPose]:
    """N portraits (N, 3, S, S) in [-1, 1], their poses, and those of the frames on them."""
    assert batch.reference is not None and batch.head is not None and batch.poses is not None
    portraits, heads = (x.repeat_interleave(batch.target.shape[1], dim=0) for x in (batch.reference, batch.head))
    return signed(portraits), unpack_poses(heads), unpack_poses(batch.poses.flatten(0, 1))


def compare(made: Tensor, frames: Tensor, masks: Tensor) -> Tensor:
    """Mean weighted absolute difference of images (N, 3, S, S) at several sides; ``masks`` is (N, 3, G, G)."""
    total = made.new_zeros(())
    for _ in range(SCALES):
        total = total + (place_weight(masks, made.shape[-2:]) * (made - frames).abs()).mean()
        made, frames = F.avg_pool2d(made, 2), F.avg_pool2d(frames, 2)
    return total / SCALES
