"""Stage 3 of the bundled model: motion tokens that say the expression and not the person.

The ground truth allows what no real data does: the same performance on two people. The tokens of both are
pulled together, and a linear reading of them (dropped after training) must give the expression.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.config import MotionEncoderConfig
from personalive.models.motion_encoder import MotionEncoder
from personalive.synthetic import EXPRESSION_NAMES
from personalive.training.augment import jitter_colours, jitter_place
from personalive.training.cache import TOKENS, FrameCache
from personalive.training.data import RenderedSet
from personalive.training.loop import Losses

IMPORTANT = {"jawOpen": 4.0, "eyeBlinkLeft": 2.0, "eyeBlinkRight": 2.0, "eyeLookX": 2.0, "eyeLookY": 2.0}
EARLY_WEIGHT = 1.0  # of the reading made before the bottleneck: without it the layers below never see faint changes
AGREEMENT_WEIGHT, SPREAD_WEIGHT = 0.3, 0.1
TOKEN_SPREAD = 0.3  # of every token value over frames; keyframes at a distance of 17 are then rare but do occur


class TokenReader(nn.Module):
    """Motion encoder, the linear reading of its tokens, and an early one of the maps they are made from."""

    def __init__(self, encoder: MotionEncoder, config: MotionEncoderConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.read = nn.Linear(config.tokens * config.token_width, len(EXPRESSION_NAMES))
        self.early = nn.Linear(config.landmark_maps * (config.face_size_px // 8) ** 2, len(EXPRESSION_NAMES))
        for layer in (self.read, self.early):  # their noise would drown what the encoder should learn from
            nn.init.zeros_(layer.weight)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, s, s) in [-1, 1] -> tokens (B, T, K), expression (B, E), early reading (B, E)."""
        maps = self.encoder.maps(faces)
        tokens = self.encoder.tokens_of(maps).float()
        return tokens, self.read(tokens.flatten(1)), self.early(F.avg_pool2d(maps, 2).flatten(1))


def expression_loss(read: Tensor, truth: Tensor) -> Tensor:
    """Weighted squared error of (B, E) expressions."""
    weights = torch.tensor([IMPORTANT.get(name, 1.0) for name in EXPRESSION_NAMES], device=read.device)
    return (weights * (read - truth).square()).mean()


def load_faces(cache: FrameCache, rows: list[int], rng: np.random.Generator, device: torch.device) -> Tensor:
    """Augmented face crops of cache rows, (B, 3, s, s) in [-1, 1]."""
    faces = torch.from_numpy(np.stack([cache.faces[row] for row in rows])).to(device)
    faces = faces.permute(0, 3, 1, 2).float() / 255
    return jitter_place(jitter_colours(faces, rng), rng) * 2 - 1


class TokenStage:
    """Expression reading, agreement between the two people, tokens of spread one."""

    def __init__(self, reader: TokenReader, data: RenderedSet, cache: FrameCache, batch: int) -> None:
        self.reader, self.data, self.cache, self.batch = reader, data, cache, batch
        self.device = next(reader.parameters()).device

    def __call__(self, step: int, done: float) -> Losses:
        rng = np.random.default_rng([step, 3])
        config = self.data.config
        picks = [(int(rng.integers(config.groups)), int(rng.integers(config.frames))) for _ in range(self.batch // 2)]
        rows = [self.cache.index(g, p, k) for p in range(2) for g, k in picks]
        truth = np.stack([self.data.truth.expression[g, k] for g, k in picks])
        truth = torch.from_numpy(np.concatenate([truth, truth])).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            tokens, read, early = self.reader(load_faces(self.cache, rows, rng, self.device))
        reading, early_reading = (expression_loss(found.float(), truth) for found in (read, early))
        one, other = tokens.chunk(2)
        agreement = F.mse_loss(one, other)
        spread = (tokens.flatten(1).std() - 1).square()
        jaw = EXPRESSION_NAMES.index("jawOpen")
        return {
            "loss": reading + EARLY_WEIGHT * early_reading + AGREEMENT_WEIGHT * agreement + SPREAD_WEIGHT * spread,
            "reading": reading.detach(),
            "early": early_reading.detach(),
            "jaw": F.l1_loss(read[:, jaw], truth[:, jaw]).detach(),
            "agreement": agreement.detach(),
        }


@torch.no_grad()
def standardise_tokens(encoder: MotionEncoder, cache: FrameCache) -> None:
    """Scale the encoder's last layer, and the cached tokens alike, to mean 0 and one spread around their positions.

    Without it the positions outweigh the motion many times, and what attends to the tokens learns slowly.
    """
    tokens = torch.from_numpy(np.load(cache.folder / TOKENS, allow_pickle=False)).float()
    positions = encoder.pe[0].cpu()
    values = tokens - positions
    mean, spread = values.mean(dim=0), values.std(dim=0).mean()
    factor = TOKEN_SPREAD / spread
    layer = encoder.final_proj
    layer.weight.mul_(factor.to(layer.weight))
    layer.bias.sub_(mean.flatten().to(layer.bias)).mul_(factor.to(layer.bias))
    np.save(cache.folder / TOKENS, ((values - mean) * factor + positions).half().numpy(), allow_pickle=False)
