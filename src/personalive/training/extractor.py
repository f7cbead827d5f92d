"""Stage 2 of the bundled model: head pose and keypoints, supervised by the ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.models.pose import MotionExtractor
from personalive.training.augment import jitter_colours, vary_view
from personalive.training.build import standardise_norms
from personalive.training.data import PEOPLE, RenderedSet
from personalive.training.loop import Losses
from personalive.vision.keypoints import HeadPose, transform_keypoints
from personalive.vision.resize import resize_frames

BIN_DEGREES = 3.0
CALM_DEGREES = 3.0  # errors beyond this count linearly, or the few wild poses would drown the many calm ones
KEYPOINT_WEIGHT, PLACE_WEIGHT, ANGLE_WEIGHT = 500.0, 500.0, 0.5  # squared errors in image units and degrees
CHANGE_WEIGHT = 1000.0  # of the changes of shift and size between two images of a person: what motion is made of


class ExtractorStage:
    """Cross-entropy on angle bins, squared error of angles, shift, scale, canonical and projected keypoints.

    Images come in pairs of one person, so that changes can be right where the absolute size cannot be known.
    """

    def __init__(self, extractor: MotionExtractor, data: RenderedSet, size_px: int, batch: int) -> None:
        self.extractor, self.data, self.size_px, self.batch = extractor, data, size_px, batch
        self.device = next(extractor.parameters()).device

    def standardise(self) -> None:
        """Start from the data: norms from a batch of images, heads from the mean head at rest."""
        images, truth = self._batch(np.random.default_rng(2))
        standardise_norms(self.extractor, lambda: self.extractor.heads(images))
        detector = self.extractor.detector
        means = {"fc_kp": truth.kp.flatten(1), "fc_t": truth.t, "fc_scale": truth.scale}
        for name in ("fc_kp", "fc_t", "fc_scale", "fc_yaw", "fc_pitch", "fc_roll"):
            head = getattr(detector, name)
            nn.init.zeros_(head.weight)  # else its noise drowns what the body should learn from
            nn.init.zeros_(head.bias)
            if name in means:
                head.bias.data.copy_(means[name].mean(dim=0))

    def __call__(self, step: int, done: float) -> Losses:
        rng = np.random.default_rng([step, 2])
        images, truth = self._batch(rng)
        with torch.autocast(self.device.type, torch.bfloat16):
            heads = self.extractor.heads(images)
        pose = self.extractor.pose(heads)
        angle = sum((_bin_loss(logits, target) for logits, target in _angle_pairs(heads, truth)), torch.zeros(()))
        degrees = sum(
            (F.huber_loss(getattr(pose, a), getattr(truth, a), delta=CALM_DEGREES) for a in ("yaw", "pitch", "roll")),
            torch.zeros(()),
        )
        projected = F.mse_loss(transform_keypoints(pose)[..., :2], transform_keypoints(truth)[..., :2])
        keypoints = F.mse_loss(pose.kp, truth.kp) + projected
        place = F.mse_loss(pose.t[:, :2], truth.t[:, :2]) + F.mse_loss(pose.scale, truth.scale)
        change = F.mse_loss(_change(pose), _change(truth))
        loss = angle + ANGLE_WEIGHT * degrees + KEYPOINT_WEIGHT * keypoints + PLACE_WEIGHT * place
        return {
            "loss": loss + CHANGE_WEIGHT * change,
            "yaw_deg": F.l1_loss(pose.yaw, truth.yaw).detach(),
            "keypoints": projected.detach(),
            "place": place.detach(),
            "change": change.detach(),
        }

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, HeadPose]:
        config = self.data.config
        people = rng.integers((config.groups, PEOPLE), size=(self.batch // 2, 2)).tolist()
        picks = [(g, p, k) for g, p in people for k in rng.choice(config.frames, 2, replace=False).tolist()]
        images = torch.from_numpy(np.stack([self.data.images[pick] for pick in picks])).to(self.device)
        pose = true_pose(self.data, picks).to(self.device)
        images, pose = vary_view(images.permute(0, 3, 1, 2).float() / 255, pose, rng)
        return jitter_colours(resize_frames(images, self.size_px), rng), pose


def true_pose(data: RenderedSet, picks: Sequence[tuple[int, int, int]]) -> HeadPose:
    """Ground truth of frames (group, person, frame)."""
    pose = torch.from_numpy(np.stack([data.truth.pose[g, k] for g, _, k in picks]))
    kp = torch.from_numpy(np.stack([data.truth.keypoints[g, p] for g, p, _ in picks]))
    yaw, pitch, roll, scale, tx, ty = pose.unbind(1)
    t = torch.stack([tx, ty, torch.zeros_like(tx)], dim=1)
    return HeadPose(kp=kp.float(), yaw=yaw, pitch=pitch, roll=roll, t=t, scale=scale[:, None])


def _change(pose: HeadPose) -> Tensor:
    """Shift and size of every second image minus those of the one before it, (B/2, 3)."""
    place = torch.cat([pose.t[:, :2], pose.scale], dim=1)
    return place[1::2] - place[::2]


def _angle_pairs(heads, truth: HeadPose) -> list[tuple[Tensor, Tensor]]:
    return [(heads.yaw, truth.yaw), (heads.pitch, truth.pitch), (heads.roll, truth.roll)]


def _bin_loss(logits: Tensor, degrees: Tensor) -> Tensor:
    """Cross-entropy against the two bins that a (B,) angle lies between."""
    bins = logits.shape[1]
    place = (degrees / BIN_DEGREES + (bins - 1) / 2).clamp(0, bins - 1.001)
    low = place.long()
    share = (place - low)[:, None]
    target = (1 - share) * F.one_hot(low, bins) + share * F.one_hot(low + 1, bins)
    return F.cross_entropy(logits.float(), target)


@torch.no_grad()
def extract_all(extractor: nn.Module, images: np.ndarray, size_px: int, batch: int = 64) -> HeadPose:
    """Poses found in (N, S, S, 3) uint8 images, on the CPU."""
    device = next(extractor.parameters()).device
    poses = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(np.array(images[start : start + batch])).to(device)
        pixels = resize_frames(pixels.permute(0, 3, 1, 2).float() / 255, size_px)
        with torch.autocast(device.type, torch.bfloat16):
            poses.append(extractor(pixels).to("cpu"))
    return HeadPose.cat(poses)
