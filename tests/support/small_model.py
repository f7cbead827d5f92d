"""A complete random model of 64 px that loads and runs in well under a second: for tests of everything around it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from personalive.checkpoints.networks import save_networks
from personalive.config import (
    ModelConfig,
    MotionEncoderConfig,
    MotionExtractorConfig,
    PoseGuiderConfig,
    ScheduleConfig,
)
from personalive.models.unet import UNetConfig
from personalive.training.scratch import build_networks
from personalive.training.shapes import ModelShape

SMALL_SIZE_PX = 64
_LATENT_CHANNELS, _CONTEXT_WIDTH, _TOKEN_WIDTH = 4, 16, 8

SMALL_SHAPE = ModelShape(
    model=ModelConfig(
        image_size_px=SMALL_SIZE_PX,
        translation_gain=1.0,
        scale_gain=1.0,
        motion_encoder=MotionEncoderConfig(
            face_size_px=64,
            width=8,
            landmark_maps=4,
            attention_width=16,
            attention_heads=2,
            tokens=4,
            token_width=_TOKEN_WIDTH,
        ),
        motion_extractor=MotionExtractorConfig(input_size_px=64, depths=(1, 1, 1, 1), widths=(8, 8, 8, 8)),
        pose_guider=PoseGuiderConfig(canvas_size_px=SMALL_SIZE_PX, widths=(8, 8, 8, 8)),
        schedule=ScheduleConfig(prediction="residual", beta_end=0.002),  # noise that a few training steps can remove
    ),
    unet=UNetConfig(
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        channels=(8, 16),
        down_attends=(True, False),
        up_attends=(False, True),
        layers=1,
        heads=2,
        groups=4,
        context_width=_CONTEXT_WIDTH,
        motion_width=_TOKEN_WIDTH,
    ),
    vae={
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,  # stride 8
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [8, 8, 8, 16],
        "layers_per_block": 1,
        "latent_channels": _LATENT_CHANNELS,
        "norm_num_groups": 4,
        "sample_size": SMALL_SIZE_PX,
        "scaling_factor": 1.0,
    },
    clip={
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": _CONTEXT_WIDTH,
        "image_size": 32,
        "patch_size": 16,
        "hidden_act": "quick_gelu",
    },
)


def write_small_model(folder: Path, seed: int = 0, shape: ModelShape = SMALL_SHAPE) -> Path:
    """Write the model, with weights that depend on ``seed`` alone, to ``folder``, which must not exist yet."""
    save_networks(build_networks(shape, seed), folder)
    return folder


def smallest_shape(chunk_frames: int = 8) -> ModelShape:
    """One level of everything; eight frames per call halve the calls."""
    model = SMALL_SHAPE.model
    side_px = 32
    return dataclasses.replace(
        SMALL_SHAPE,
        model=dataclasses.replace(
            model,
            image_size_px=side_px,
            chunk_frames=chunk_frames,
            motion_extractor=dataclasses.replace(model.motion_extractor, input_size_px=32),
            pose_guider=dataclasses.replace(model.pose_guider, canvas_size_px=side_px),
        ),
        unet=UNetConfig(
            channels=(8,), down_attends=(True,), up_attends=(True,), layers=1, heads=2, groups=4, context_width=16,
            motion_width=model.motion_encoder.token_width,
        ),
        vae=SMALL_SHAPE.vae | {"block_out_channels": [4, 4, 4, 4], "norm_num_groups": 2, "sample_size": side_px},
    )  # fmt: skip
