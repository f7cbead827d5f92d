"""Stage ``extractor``: head pose and keypoints, supervised by the ground truth of rendered heads (ours).

Letters: B images, S their side, K keypoints, N angle bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.errors import InputError
from personalive.training.batch import Tensors, check_sample
from personalive.training.data.augment import jitter_colours, vary_view
from personalive.training.data.sets import GroundTruth, Pair
from personalive.training.log import page
from personalive.training.losses import Output
from personalive.training.stages.base import Rngs, StageLosses
from personalive.vision.canvas import draw_canvas
from personalive.vision.keypoints import HeadPose, transform_keypoints
from personalive.vision.resize import resize_frames

BIN_DEGREES = 3.0
LINEAR_FROM_DEG = 3.0  # errors beyond count linearly, or the few wild poses would drown the many calm ones
KEYPOINT_WEIGHT, PLACE_WEIGHT, ANGLE_WEIGHT = 500.0, 500.0, 0.5  # squared errors in image units and degrees
CHANGE_WEIGHT = 1000.0  # of the changes of shift and size between two images of a person: what motion is made of


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
        angles = [_bin_loss(getattr(heads, name), getattr(truth, name)) for name in ("yaw", "pitch", "roll")]
        degrees = [
            F.huber_loss(getattr(pose, name), getattr(truth, name), delta=LINEAR_FROM_DEG)
            for name in ("yaw", "pitch", "roll")
        ]
        projected = F.mse_loss(transform_keypoints(pose)[..., :2], transform_keypoints(truth)[..., :2])
        keypoints = F.mse_loss(pose.kp, truth.kp) + projected
        place = F.mse_loss(pose.t[:, :2], truth.t[:, :2]) + F.mse_loss(pose.scale, truth.scale)
        change = F.mse_loss(_change(pose), _change(truth))
        loss = torch.stack(angles).sum() + ANGLE_WEIGHT * torch.stack(degrees).sum()
        loss = loss + KEYPOINT_WEIGHT * keypoints + PLACE_WEIGHT * place + CHANGE_WEIGHT * change
        measured = {"keypoints": projected, "place": place, "change": change}
        measured["yaw_deg"] = F.l1_loss(pose.yaw, truth.yaw)
        yield Output({"loss": loss, **{name: value.detach() for name, value in measured.items()}})

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
