"""Face landmark and blendshape networks of MediaPipe's face landmarker (its model cards; Apache-2.0).

The layers are those of the published ``face_landmarks_detector.tflite`` (Face Mesh V2, with irises) and
``face_blendshapes.tflite`` (Blendshape V2, an MLP mixer: Tolstikhin et al. 2021), whose batch norms are folded into
the convolutions. ``scripts/convert_face_landmarks.py`` converts their weights.

Letters: B images, C channels, H W feature height and width, S crop side (256 px), T tokens (97).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANDMARKS = 478  # weights: 468 of the face's surface, then 5 of each iris
BLENDSHAPES = 52  # weights: "_neutral", then 51 of ARKit's

_STEM_WIDTH = 16  # weights
_STAGES = ((16, 8), (32, 16), (64, 32), (128, 64), (128, 64), (128, 64), (128, 64))  # weights: (width, inner width)
_BLOCKS = 4  # weights: at the full resolution of a stage
_LAST_SIDE = 2  # S / 2⁷: the heads are convolutions over all of it

_TOKENS, _TOKEN_WIDTH, _MIXER_BLOCKS = 96, 64, 4  # weights
_TOKEN_INNER, _CHANNEL_INNER = 384, 256  # weights
_MIXER_EPS = 1e-6  # weights
# Landmarks that the blendshape network reads, in this order (weights): first and last index of each run.
_SUBSET_RUNS = (
    *((0, 1), (4, 8), (10, 10), (13, 14), (17, 17), (21, 21), (33, 33), (37, 37), (39, 40), (46, 46), (52, 55)),
    *((58, 58), (61, 61), (63, 63), (65, 67), (70, 70), (78, 78), (80, 82), (84, 84), (87, 88), (91, 91), (93, 93)),
    *((95, 95), (103, 103), (105, 105), (107, 107), (109, 109), (127, 127), (132, 133), (136, 136), (144, 146)),
    *((148, 150), (152, 155), (157, 163), (168, 168), (172, 173), (176, 176), (178, 178), (181, 181), (185, 185)),
    *((191, 191), (195, 195), (197, 197), (234, 234), (246, 246), (249, 249), (251, 251), (263, 263), (267, 267)),
    *((269, 270), (276, 276), (282, 285), (288, 288), (291, 291), (293, 293), (295, 297), (300, 300), (308, 308)),
    *((310, 312), (314, 314), (317, 318), (321, 321), (323, 324), (332, 332), (334, 334), (336, 336), (338, 338)),
    *((356, 356), (361, 362), (365, 365), (373, 375), (377, 382), (384, 390), (397, 398), (400, 400), (402, 402)),
    *((405, 405), (409, 409), (415, 415), (454, 454), (466, 466), (468, 477)),
)
BLENDSHAPE_LANDMARKS = tuple(index for first, last in _SUBSET_RUNS for index in range(first, last + 1))  # 146


class FaceLandmarks(nn.Module):
    """Landmarks of the face in an upright square crop (weights: ``face_landmarks.safetensors``)."""

    def __init__(self) -> None:
        super().__init__()
        # TensorFlow's SAME: of the one row and column that a stride of 2 needs, none is at the top or the left.
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.stem = nn.Conv2d(3, _STEM_WIDTH, 3, stride=2)
        self.stem_act = nn.PReLU(_STEM_WIDTH)
        self.stages = nn.ModuleList()
        before = _STEM_WIDTH
        for index, (width, inner) in enumerate(_STAGES):
            blocks = [_Block(before, inner, width, stride=2)] if index else []
            blocks += [_Block(width, inner, width) for _ in range(_BLOCKS)]
            self.stages.append(nn.Sequential(*blocks))
            before = width
        self.landmarks = nn.Conv2d(before, 3 * LANDMARKS, _LAST_SIDE)
        self.presence = nn.Conv2d(before, 1, _LAST_SIDE)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) RGB in [0, 1] → landmarks (B, 478, 3) in crop pixels, face presence (B,) as a logit.

        x points right and y down from the crop's corner; z is depth on the same scale, negative towards the camera.
        """
        x = self.stem_act(self.stem(self.pad(crops)))
        for stage in self.stages:
            x = stage(x)
        return self.landmarks(x).view(-1, LANDMARKS, 3), self.presence(x).view(-1)


class _Block(nn.Module):
    """Bottleneck: 1×1 (2×2 when halving) → PReLU → 3×3 depthwise → 1×1, + input, → PReLU."""

    def __init__(self, width: int, inner: int, wide: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.more_channels = wide - width
        self.narrow = nn.Conv2d(width, inner, stride, stride=stride)
        self.narrow_act = nn.PReLU(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.widen = nn.Conv2d(inner, wide, 1)
        self.act = nn.PReLU(wide)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same, or (B, wide, H/2, W/2) with a stride of 2."""
        inner = self.widen(self.depthwise(self.narrow_act(self.narrow(x))))
        if self.stride > 1:
            x = F.max_pool2d(x, self.stride)
        if self.more_channels:
            x = F.pad(x, (0, 0, 0, 0, 0, self.more_channels))
        return self.act(x + inner)


class FaceBlendshapes(nn.Module):
    """Blendshape coefficients of landmarks (weights: ``face_blendshapes.safetensors``)."""

    def __init__(self) -> None:
        super().__init__()
        self.subset: Tensor
        self.register_buffer("subset", torch.tensor(BLENDSHAPE_LANDMARKS), persistent=False)
        self.mix_landmarks = nn.Linear(len(BLENDSHAPE_LANDMARKS), _TOKENS)
        self.embed = nn.Linear(2, _TOKEN_WIDTH)
        self.token = nn.Parameter(torch.zeros(_TOKEN_WIDTH))
        self.blocks = nn.Sequential(*(_MixerBlock(_TOKENS + 1) for _ in range(_MIXER_BLOCKS)))
        self.head = nn.Linear(_TOKEN_WIDTH, BLENDSHAPES)

    def forward(self, landmarks: Tensor) -> Tensor:
        """(B, 478, 2 or 3) landmarks on square pixels, of any place and size → (B, 52) in [0, 1].

        z is not read. The face is not turned upright: MediaPipe gives the landmarks as they lie in the image.
        """
        points = landmarks[:, self.subset, :2]
        points = points - points.mean(dim=1, keepdim=True)
        size = torch.linalg.vector_norm(points, dim=2, keepdim=True).mean(dim=1, keepdim=True)
        mixed = self.mix_landmarks((0.5 * points / size).transpose(1, 2)).transpose(1, 2)
        token = self.token.expand(landmarks.shape[0], 1, -1)
        x = self.blocks(torch.cat([token, self.embed(mixed)], dim=1))
        return torch.sigmoid(self.head(x[:, 0]))


class _MixerBlock(nn.Module):
    """MLP over the tokens of each channel, then over the channels of each token, each added to its input."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(_TOKEN_WIDTH, eps=_MIXER_EPS, bias=False)
        self.token_widen = nn.Linear(tokens, _TOKEN_INNER)
        self.token_narrow = nn.Linear(_TOKEN_INNER, tokens)
        self.channel_norm = nn.LayerNorm(_TOKEN_WIDTH, eps=_MIXER_EPS, bias=False)
        self.channel_widen = nn.Linear(_TOKEN_WIDTH, _CHANNEL_INNER)
        self.channel_narrow = nn.Linear(_CHANNEL_INNER, _TOKEN_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → same."""
        across = self.token_narrow(F.relu(self.token_widen(self.token_norm(x).transpose(1, 2))))
        x = x + across.transpose(1, 2)
        return x + self.channel_narrow(F.relu(self.channel_widen(self.channel_norm(x))))
