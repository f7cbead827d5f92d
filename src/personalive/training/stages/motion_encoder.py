"""Stage ``motion_encoder``: motion tokens that give the expression and not the person (ours).

Rendered heads allow what no recording does: the same performance by two people. The tokens of both are pulled
together, and a linear reading of them (dropped after training) must give the expression.

Letters: B pairs, s side of a face crop, T K motion tokens and their width, E expression values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.errors import TrainingError
from personalive.synthetic import EXPRESSION_NAMES
from personalive.training.batch import Tensors, check_sample, signed
from personalive.training.data.augment import augment_faces
from personalive.training.data.sets import Pair
from personalive.training.log import images_of, page
from personalive.training.losses import Output
from personalive.training.stages.base import Context, Rngs, StageLosses
from personalive.training.stages.extractor import truth_of

IMPORTANT = {"jawOpen": 4.0, "eyeBlinkLeft": 2.0, "eyeBlinkRight": 2.0, "eyeLookX": 2.0, "eyeLookY": 2.0}
UNIT_SPREAD_WEIGHT = 0.1
SPREAD_SAMPLES = 512  # faces whose tokens decide the spread
_SPREAD_ROWS = 1 << 42  # in the place of the step


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
        jaw = EXPRESSION_NAMES.index("jawOpen")
        measured = {"reading": reading, "early": early_reading, "agreement": agreement}
        measured["jaw"] = F.l1_loss(read[:, jaw], truth[:, jaw])
        yield Output({"loss": loss, **{name: value.detach() for name, value in measured.items()}})

    @torch.no_grad()
    def finish(self) -> None:
        """Bring the tokens to mean 0 and a known spread around their positions.

        Without it the positions outweigh the motion many times, and what attends to the tokens learns slowly.

        Raises:
            TrainingError: the tokens tell nothing.
        """
        encoder, batch, found = self.networks.motion_encoder, self.config.batch, []
        for start in range(0, SPREAD_SAMPLES // 2, batch):
            drawn = self.source.draw(_SPREAD_ROWS, range(start, min(start + batch, SPREAD_SAMPLES // 2)))
            found.append(encoder(self.make(drawn.samples).faces.flatten(0, 1)).float())
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
            shown.append(images_of(torch.cat([faces, varied])))
        return page(shown)
