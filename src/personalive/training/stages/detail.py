"""Stage ``detail``: the detail head alone, on frames that the model itself made and decoded (ours).

Where the frame's content is in the portrait, and how far to trust the pixels found there, by the error of the blended
image at three sides. Letters: N frames, S image side.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.errors import InputError
from personalive.models.detail import find
from personalive.training.batch import Batch, decode, signed
from personalive.training.losses import Output
from personalive.training.stages.base import Context, Rngs
from personalive.training.stages.distill import Rollout
from personalive.training.stages.finding import finding_inputs, place_weight
from personalive.training.stages.image_level import frames_of

FOUND_WEIGHT = 0.5  # of the found pixels' own error: where the blend shuns them they still have to learn
SCALES = 3  # sides at which images are compared, each half of the one before


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
        frames, masks = signed(batch.target.flatten(0, 1)), batch.masks.flatten(0, 1).float()
        portraits, source, target = finding_inputs(batch)
        with self.compute.autocast():
            found, hidden = find(self.head, made.predicted.features, portraits, source, target)
            trust = self.head.blend_mask(decoded, found, hidden)
        error = compare(decoded + trust * (found - decoded), frames, masks)
        found_error = compare(found, frames, masks)
        measured = {"found": found_error, "decoded": compare(decoded, frames, masks), "trust": trust.mean()}
        loss = error + FOUND_WEIGHT * found_error
        yield Output({"loss": loss, "blended": error.detach(), **{name: x.detach() for name, x in measured.items()}})


def compare(made: Tensor, frames: Tensor, masks: Tensor) -> Tensor:
    """Mean weighted absolute difference of images (N, 3, S, S) at several sides; ``masks`` is (N, 3, G, G)."""
    total = made.new_zeros(())
    for _ in range(SCALES):
        total = total + (place_weight(masks, made) * (made - frames).abs()).mean()
        made, frames = F.avg_pool2d(made, 2), F.avg_pool2d(frames, 2)
    return total / SCALES
