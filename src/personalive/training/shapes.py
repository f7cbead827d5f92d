"""Shapes of the models that `--weights scratch` builds: the released one, and the bundled one (ours).

The bundled model's sizes follow one budget: real time at 256 px on two CPU cores, weights of 40 MB in half precision.
A small net without pretraining cannot find the portrait's pixels again by attention alone, so its levels are so low
that there is almost no noise: frames enter as the portrait with its head moved, and four passes correct that. The
model predicts what is to be added, so that whatever stands still costs it nothing; a noise prediction says the same,
but at these levels over a hundred times larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
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


def _vae(**sizes: Any) -> dict[str, Any]:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        **sizes,
    }


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Everything that decides the shape of a model."""

    model: ModelConfig
    unet: UNetConfig
    vae: dict[str, Any]
    clip: dict[str, Any]


TINY = ModelShape(
    model=ModelConfig(
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
    ),
    unet=UNetConfig(
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
    ),
    vae=_vae(
        block_out_channels=[16, 16, 48, 96],
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,  # more would wash out the brightness of whole images at so few channels
        sample_size=256,
        act_fn="silu",
        scaling_factor=1.0,  # set from the data when the VAE is trained
    ),
    clip={
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": CONTEXT_WIDTH,
        "image_size": 64,
        "patch_size": 8,
        "hidden_act": "quick_gelu",
    },
)
_FULL = ModelShape(
    model=ModelConfig(),
    unet=UNetConfig(),
    vae=_vae(
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    ),
    clip={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "projection_dim": 768,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    },
)
SHAPES: Mapping[str, ModelShape] = MappingProxyType({"full": _FULL, "tiny": TINY})  # by preset
