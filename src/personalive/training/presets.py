"""The shape of the bundled model and the defaults of its training stages (ours).

The sizes follow one budget: real time at 256 px on two CPU cores, weights of 40 MB in half precision. A small net
without pretraining cannot find the portrait's pixels again by attention alone, so its levels are so low that there is
almost no noise: frames enter as the portrait with its head moved, and four passes correct that. The model predicts
what is to be added, so that whatever stands still costs it nothing; a noise prediction says the same, but at these
levels over a hundred times larger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from personalive.config import (
    DetailConfig,
    KeyframeConfig,
    ModelConfig,
    MotionEncoderConfig,
    MotionExtractorConfig,
    PoseGuiderConfig,
    ScheduleConfig,
)
from personalive.models.unet import UNetConfig

LATENT_CHANNELS = 16
CONTEXT_WIDTH = 64


def _vae() -> dict[str, Any]:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [16, 16, 48, 96],
        "layers_per_block": 1,
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": 1,  # more would wash out the brightness of whole images at so few channels
        "sample_size": 256,
        "act_fn": "silu",
        "scaling_factor": 1.0,  # set from the data when the VAE is trained
    }


def _clip() -> dict[str, Any]:
    return {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": CONTEXT_WIDTH,
        "image_size": 64,
        "patch_size": 8,
        "hidden_act": "quick_gelu",
    }


_MODEL = ModelConfig(
    image_size_px=256,
    translation_gain=1.0,
    scale_gain=1.0,
    entry="moved",
    framing_scale=2.2,
    motion_encoder=MotionEncoderConfig(
        face_size_px=96, width=16, landmark_maps=32, attention_width=128, attention_heads=8
    ),
    motion_extractor=MotionExtractorConfig(input_size_px=128, depths=(1, 1, 3, 1), widths=(32, 64, 128, 256)),
    pose_guider=PoseGuiderConfig(canvas_size_px=256, widths=(8, 16, 32, 64)),
    schedule=ScheduleConfig(prediction="residual", beta_start=1e-5, levels=(0, 1, 2, 3), step=1),
    keyframes=KeyframeConfig(),
    detail=DetailConfig(width=64),
)
_UNET = UNetConfig(
    in_channels=LATENT_CHANNELS,
    out_channels=LATENT_CHANNELS,
    channels=(64, 96, 128),
    down_attends=(False, True, True),
    up_attends=(True, True, False),
    frame_levels=(False, True, True),
    layers=1,
    heads=2,
    groups=4,
    context_width=CONTEXT_WIDTH,
)


@dataclass(frozen=True, kw_only=True)
class TinyPreset:
    """Everything that decides the shape of the bundled model."""

    model: ModelConfig = _MODEL
    unet: UNetConfig = _UNET
    vae: dict[str, Any] = field(default_factory=_vae)
    clip: dict[str, Any] = field(default_factory=_clip)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Optimisation of one stage. A stage ends at ``steps`` or after ``minutes``, whichever comes first."""

    steps: int
    start_steps: int = 0  # of the linear start before the first step; the autoencoder's alone
    minutes: float = float("inf")
    batch: int  # images, crops or portraits per step
    frames: int = 1  # driving frames per portrait
    lr: float = 1e-3  # AdamW, cosine to a twentieth after a short warm-up
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_half_life_steps: int = 100


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The rendered training set: groups of two people who give the same performance."""

    groups: int = 1500
    frames: int = 10  # per person and group
    frame_gap: int = 17  # performance frames between two of a group
    first_seed: int = 0
    size_px: int = 256


HELD_OUT_SEED = 10_000_000  # seeds from here on are never rendered for training

STAGES: dict[str, StageConfig] = {
    "vae": StageConfig(steps=20000, start_steps=4000, batch=4, lr=1e-3, warmup_steps=200),
    "decoder": StageConfig(steps=8000, batch=2, lr=4e-4, warmup_steps=50),
    "extractor": StageConfig(steps=6000, batch=24, lr=4e-4, clip_norm=10.0),
    "tokens": StageConfig(steps=4000, batch=48, lr=1e-3),
    "motion": StageConfig(steps=20000, batch=4, frames=6, lr=8e-4),
    "sharpen": StageConfig(steps=5000, batch=4, frames=6, lr=6e-4, warmup_steps=30),
    "detail": StageConfig(steps=1500, batch=4, frames=4, lr=1e-3, warmup_steps=30),
    "temporal": StageConfig(steps=4000, batch=2, frames=80, lr=5e-4, warmup_steps=30),
}
