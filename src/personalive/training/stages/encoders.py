"""Stages of what a model from nothing needs first (ours): ``autoencoder``, ``extractor`` and ``motion_encoder``.

``autoencoder`` takes images to latents and back. ``extractor`` learns head pose and keypoints from the ground truth
of rendered heads. ``motion_encoder`` learns tokens that give the expression and not the person: rendered heads allow
what no recording does, the same performance by two people. The tokens of both are pulled together, and a linear
reading of them (dropped after training) must give the expression.

Letters: B images or pairs, S their side, c s sides of a crop and of a face crop, C latent channels, h w latent sides,
K keypoints, N angle bins, E expression values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.errors import InputError, TrainingError
from personalive.synthetic import EXPRESSION_NAMES
from personalive.training.batch import Tensors, check_sample, signed
from personalive.training.data.augment import augment_faces, jitter_colours, vary_view
from personalive.training.data.sets import GroundTruth, Pair
from personalive.training.log import page
from personalive.training.losses import Output
from personalive.training.stages.base import Context, Rngs, StageLosses
from personalive.vision.canvas import draw_canvas
from personalive.vision.keypoints import HeadPose, transform_keypoints
from personalive.vision.resize import resize_frames, tensor_to_frames

SCALING_SAMPLES = 256  # images whose latents decide the scaling factor
BIN_DEGREES = 3.0
LINEAR_FROM_DEG = 3.0  # errors beyond count linearly, or the few wild poses would drown the many calm ones
KEYPOINT_WEIGHT, PLACE_WEIGHT, ANGLE_WEIGHT = 500.0, 500.0, 0.5  # squared errors in image units and degrees
CHANGE_WEIGHT = 1000.0  # of the changes of shift and size between two images of a person: what motion is made of
IMPORTANT = {"jawOpen": 4.0, "eyeBlinkLeft": 2.0, "eyeBlinkRight": 2.0, "eyeLookX": 2.0, "eyeLookY": 2.0}
UNIT_SPREAD_WEIGHT = 0.1
SPREAD_SAMPLES = 512  # faces whose tokens decide the spread

# --- autoencoder ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Images(Tensors):
    """Images, and where their eyes and mouths are."""

    images: Tensor  # (B, 3, S, S) uint8
    masks: Tensor  # (B, S, S) bool


class AutoencoderLosses(StageLosses[Images]):
    """Absolute and squared errors, later of edges too, of random crops; half of them around the face."""

    kind = Images

    def make(self, samples: Sequence[Pair]) -> Images:
        """Targets of pairs."""
        images = np.stack([sample.target for sample in samples])
        check_sample(images, self.networks.config.image_size_px)
        masks = np.stack([sample.masks[1:].any(axis=0) for sample in samples])
        device = self.compute.device
        return Images(torch.from_numpy(images).to(device).permute(0, 3, 1, 2), torch.from_numpy(masks).to(device))

    def losses(self, step: int | None, batch: Images, rngs: Rngs) -> Iterator[Output]:
        """One output per step; whole images where they are held out."""
        config, vae = self.config.autoencoder, self.networks.vae
        images = batch.images if step is None else self._crops(batch, rngs)
        pixels = signed(images).contiguous(memory_format=torch.channels_last)
        with self.compute.autocast():
            posterior = vae.encode(pixels).latent_dist
            mean = posterior.mean.float()
            sample = mean
            if step is not None:
                drawn = np.stack([rng.standard_normal(tuple(mean.shape[1:]), np.float32) for rng in rngs])
                sample = mean + config.latent_noise * mean.detach().std() * torch.from_numpy(drawn).to(mean)
            made = vae.decode(sample).sample.float()
        absolute, edge = F.l1_loss(made, pixels), edge_loss(made, pixels)
        kl = posterior.kl().float().mean() / mean[0].numel()
        sharp = config.edge if step is None or step >= config.edges_from_step else 0.0
        loss = absolute + config.squared * F.mse_loss(made, pixels) + sharp * edge + config.kl * kl
        yield Output({"loss": loss, "l1": absolute, "edge": edge})

    @torch.no_grad()
    def finish(self) -> None:
        """Measure the scaling factor: latents get spread 1."""
        vae, values = self.networks.vae, []
        for batch in self.finishing_batches(SCALING_SAMPLES):
            with self.compute.autocast():
                values.append(vae.encode(signed(batch.images)).latent_dist.mean.float().cpu())
        vae.register_to_config(scaling_factor=1 / torch.cat(values).std().item())

    def sheet(self, rows: int) -> np.ndarray:
        """Held-out images above what they become."""
        batch, _ = self.held_out_batch(range(rows))
        with self.compute.autocast():
            made = self.networks.vae(signed(batch.images)).sample.float()
        return page([tensor_to_frames(images, "signed") for images in (signed(batch.images), made)])

    def _crops(self, batch: Images, rngs: Rngs) -> Tensor:
        side = batch.images.shape[-1]
        crop = min(self.config.autoencoder.crop_px, side)
        masks, crops = batch.masks.cpu().numpy(), []
        for image, mask, rng in zip(batch.images, masks, rngs, strict=True):
            place = rng.integers(0, side - crop + 1, 2)
            found = np.argwhere(mask)
            if rng.random() < 0.5 and len(found):
                jitter = rng.integers(-crop // 3, crop // 3 + 1, 2)
                place = np.clip(found[int(rng.integers(len(found)))] - crop // 2 + jitter, 0, side - crop)
            y, x = place.tolist()
            crops.append(image[:, y : y + crop, x : x + crop])
        return torch.stack(crops)


def edge_loss(made: Tensor, truth: Tensor) -> Tensor:
    """L1 between horizontal and vertical differences of (B, 3, H, W): keeps edges sharp."""
    return F.l1_loss(made.diff(dim=3), truth.diff(dim=3)) + F.l1_loss(made.diff(dim=2), truth.diff(dim=2))


# --- extractor -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class PosedImages(Tensors):
    """Two images of each person, one after the other, with their true poses; B is the number of pairs."""

    images: Tensor  # (B, 2, 3, S, S) uint8
    pose: Tensor  # (B, 2, 6) yaw, pitch, roll in degrees, scale, shift
    keypoints: Tensor  # (B, 2, K, 3) canonical


class ExtractorLosses(StageLosses[PosedImages]):
    """Cross-entropy on angle bins, errors of angles, shift, scale, canonical and projected keypoints."""

    kind = PosedImages

    def make(self, samples: Sequence[Pair]) -> PosedImages:
        """References and targets of pairs, with their ground truth."""
        images = np.stack([np.stack([sample.reference, sample.target]) for sample in samples])
        check_sample(images, self.networks.config.image_size_px)
        truths = [truth_of(sample, self.config.stage) for sample in samples]
        device = self.compute.device
        return PosedImages(
            torch.from_numpy(images).to(device).permute(0, 1, 4, 2, 3),
            torch.from_numpy(np.stack([[t.pose for t in truth] for truth in truths])).to(device),
            torch.from_numpy(np.stack([[t.keypoints for t in truth] for truth in truths])).float().to(device),
        )

    def losses(self, step: int | None, batch: PosedImages, rngs: Rngs) -> Iterator[Output]:
        """One output per step."""
        images, truth = batch.images.flatten(0, 1).float() / 255, true_pose(batch)
        if step is not None:
            images, truth = vary_view(images, truth, rngs[0])  # one generator's draws for all: they are many
        images = resize_frames(images, self.networks.config.motion_extractor.input_size_px)
        if step is not None:
            images = jitter_colours(images, rngs[0])
        extractor = self.networks.motion_extractor
        with self.compute.autocast():
            heads = extractor.heads(images)
        pose = extractor.pose(heads)
        angles, degrees = [], []
        for name in ("yaw", "pitch", "roll"):
            true = getattr(truth, name)
            angles.append(_bin_loss(getattr(heads, name), true))
            degrees.append(F.huber_loss(getattr(pose, name), true, delta=LINEAR_FROM_DEG))
        projected = F.mse_loss(transform_keypoints(pose)[..., :2], transform_keypoints(truth)[..., :2])
        keypoints = F.mse_loss(pose.kp, truth.kp) + projected
        place = F.mse_loss(pose.t[:, :2], truth.t[:, :2]) + F.mse_loss(pose.scale, truth.scale)
        change = F.mse_loss(_change(pose), _change(truth))
        loss = torch.stack(angles).sum() + ANGLE_WEIGHT * torch.stack(degrees).sum()
        loss = loss + KEYPOINT_WEIGHT * keypoints + PLACE_WEIGHT * place + CHANGE_WEIGHT * change
        yaw_deg = F.l1_loss(pose.yaw, truth.yaw)
        yield Output({"loss": loss, "keypoints": projected, "place": place, "change": change, "yaw_deg": yaw_deg})

    def sheet(self, rows: int) -> np.ndarray:
        """Held-out images, their true keypoints, and those found."""
        batch, _ = self.held_out_batch(range(rows))
        images, size_px = batch.images[:, 1], batch.images.shape[-1]
        small = resize_frames(images.float() / 255, self.networks.config.motion_extractor.input_size_px)
        true = transform_keypoints(true_pose(batch))[1::2]
        found = transform_keypoints(self.networks.motion_extractor(small))
        shown = [images.permute(0, 2, 3, 1).cpu().numpy()]
        shown += [(draw_canvas(k, size_px).permute(0, 2, 3, 1) * 255).byte().cpu().numpy() for k in (true, found)]
        return page([list(row) for row in zip(*shown, strict=True)])


def truth_of(sample: Pair, stage: str) -> tuple[GroundTruth, GroundTruth]:
    """Ground truth of a sample's reference and target.

    Raises:
        InputError: a recording, which has none.
    """
    if sample.truth is None:
        raise InputError(f"stage {stage}: {sample.name} has no ground truth: use synthetic heads as data")
    return sample.truth


def true_pose(batch: PosedImages) -> HeadPose:
    """2B poses, both of a pair one after the other."""
    yaw, pitch, roll, scale, tx, ty = batch.pose.flatten(0, 1).unbind(1)
    t = torch.stack([tx, ty, torch.zeros_like(tx)], dim=1)
    kp = batch.keypoints.flatten(0, 1)
    return HeadPose(kp=kp, yaw=yaw, pitch=pitch, roll=roll, t=t, scale=scale[:, None])


def _change(pose: HeadPose) -> Tensor:
    """Shift and size of every second image minus those of the one before it, (B, 3)."""
    place = torch.cat([pose.t[:, :2], pose.scale], dim=1)
    return place[1::2] - place[::2]


def _bin_loss(logits: Tensor, degrees: Tensor) -> Tensor:
    """Cross-entropy against the two bins that a (B,) angle lies between."""
    bins = logits.shape[1]
    place = (degrees / BIN_DEGREES + (bins - 1) / 2).clamp(0, bins - 1.001)
    low = place.long()
    share = (place - low)[:, None]
    target = (1 - share) * F.one_hot(low, bins) + share * F.one_hot(low + 1, bins)
    return F.cross_entropy(logits.float(), target)


# --- motion encoder ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Performances(Tensors):
    """Face crops of driver and target, who give the same performance."""

    faces: Tensor  # (B, 2, 3, s, s) in [-1, 1]
    expression: Tensor  # (B, E)


class Readers(nn.Module):
    """Linear readings of the expression: of the tokens, and of the maps that they are made from.

    Without the second the layers below the bottleneck never see faint changes.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        config = context.networks.config.motion_encoder
        self.tokens = nn.Linear(config.tokens * config.token_width, len(EXPRESSION_NAMES))
        self.maps = nn.Linear(config.landmark_maps * (config.face_size_px // 8) ** 2, len(EXPRESSION_NAMES))
        for layer in (self.tokens, self.maps):  # their noise would drown what the encoder should learn from
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.to(context.compute.device)


class MotionEncoderLosses(StageLosses[Performances]):
    """Errors of both readings, agreement between the two people, tokens of spread one."""

    kind = Performances

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.readers: Readers = Readers(context)
        self.buffers = dict(self.networks.motion_encoder.named_buffers())
        weights = [IMPORTANT.get(name, 1.0) for name in EXPRESSION_NAMES]
        self.weights = torch.tensor(weights, device=self.compute.device)

    def make(self, samples: Sequence[Pair]) -> Performances:
        """Face crops, by the trained extractor, of pairs with ground truth."""
        expression = np.stack([truth_of(sample, self.config.stage)[1].expression for sample in samples])
        images = np.stack([np.stack([sample.driving, sample.target]) for sample in samples])
        check_sample(images, self.networks.config.image_size_px)
        device, maker = self.compute.device, self.context.maker
        pixels = signed(torch.from_numpy(images).to(device).flatten(0, 1).permute(0, 3, 1, 2).contiguous())
        with torch.no_grad():
            faces = maker.faces(pixels, maker.poses(pixels)).unflatten(0, (-1, 2))
        return Performances(faces, torch.from_numpy(expression).to(device))

    def losses(self, step: int | None, batch: Performances, rngs: Rngs) -> Iterator[Output]:
        """One output per step."""
        config, faces = self.config.tokens, batch.faces.flatten(0, 1)
        if step is not None:
            each = [np.random.default_rng(rng.integers(2**62, size=2)) for rng in rngs for _ in range(2)]
            faces = augment_faces(faces, each, self.config.augment)
        encoder = self.networks.motion_encoder
        encoder.train(step is not None)  # with the statistics of its batches, which begin far from their end
        with self.compute.autocast():
            maps = encoder.maps(faces)
            encoder.eval()
            tokens = encoder.tokens_of(maps).float()
            read = self.readers.tokens(tokens.flatten(1)).float()
            early = self.readers.maps(F.avg_pool2d(maps, 2).flatten(1)).float()
        truth = batch.expression.repeat_interleave(2, dim=0)
        reading, early_reading = ((self.weights * (found - truth).square()).mean() for found in (read, early))
        agreement = F.mse_loss(tokens[::2], tokens[1::2])
        spread = (tokens.flatten(1).std() - 1).square()
        loss = reading + config.early * early_reading + config.agreement * agreement + UNIT_SPREAD_WEIGHT * spread
        number = EXPRESSION_NAMES.index("jawOpen")
        jaw = F.l1_loss(read[:, number], truth[:, number])
        yield Output({"loss": loss, "reading": reading, "early": early_reading, "agreement": agreement, "jaw": jaw})

    @torch.no_grad()
    def finish(self) -> None:
        """Bring the tokens to mean 0 and a known spread around their positions.

        Without it the positions outweigh the motion many times, and what attends to the tokens learns slowly.

        Raises:
            TrainingError: the tokens tell nothing.
        """
        encoder = self.networks.motion_encoder
        found = [encoder(batch.faces.flatten(0, 1)).float() for batch in self.finishing_batches(SPREAD_SAMPLES // 2)]
        values = torch.cat(found) - encoder.pe[0]
        spread = values.std(dim=0).mean()
        if not spread > 0:
            raise TrainingError("the motion tokens are the same for all faces: lower optimiser.lr in a new run")
        factor = self.config.tokens.spread / spread
        layer = encoder.final_proj
        layer.weight.mul_(factor)
        layer.bias.sub_(values.mean(dim=0).flatten()).mul_(factor)

    def sheet(self, rows: int) -> np.ndarray:
        """Held-out faces: driver and target, with augmentation beside them."""
        batch, rngs = self.held_out_batch(range(rows))
        shown = []
        for faces, rng in zip(batch.faces, rngs, strict=True):
            varied = augment_faces(faces, [rng, rng], self.config.augment)
            shown.append(tensor_to_frames(torch.cat([faces, varied]), "signed"))
        return page(shown)
