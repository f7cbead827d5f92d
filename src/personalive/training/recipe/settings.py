"""Every number of `personalive train`, once, with its unit and source; the presets are overrides of these.

"paper" is the PersonaLive paper and its published recipe; "ours" a choice of this project. Imports no torch, so
that the command line can show all of it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Stage = Literal["motion", "distill", "stream"]
STAGES: tuple[Stage, ...] = ("motion", "distill", "stream")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW for the networks and, where there is one, for the discriminator."""

    kind: Literal["adamw", "adamw8bit"] = "adamw"  # adamw8bit needs the package bitsandbytes (and its GPU)
    lr: float = 1e-5  # of the networks (paper)
    discriminator_lr: float = 2e-5  # (paper)
    weight_decay: float = 0.01  # (paper)
    beta1: float = 0.9  # AdamW's usual ones
    beta2: float = 0.999
    clip_norm: float = 1.0  # of the gradient of all parameters together (paper)
    warmup_steps: int = 0  # steps of linear growth of both rates, constant afterwards (paper: not stated)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Number format of the arithmetic, and memory. Parameters and optimiser are float32 in any case."""

    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"  # float16 scales its loss (ours)
    recompute: bool = True  # gradient checkpointing of the U-Nets' levels and, frame by frame, of the VAE's decoder


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """Exponential moving average of the trained parameters; when on, it is what is exported (ours)."""

    on: bool = False
    half_life_steps: int = 1000


@dataclass(frozen=True, kw_only=True)
class JournalConfig:
    """Intervals of all that is written, in steps (ours). None of these changes a trained number."""

    log_every_steps: int = 10  # rows of log.jsonl and TensorBoard scalars
    held_out_every_steps: int = 500  # the loss on fixed samples of people that are never trained on
    held_out_samples: int = 16  # pairs, or clips for the stage stream
    sheet_every_steps: int = 500  # sheets/*.png, and one before the first step
    sheet_rows: int = 4
    checkpoint_every_steps: int = 500
    kept_checkpoints: int = 2
    tensorboard: bool = True


@dataclass(frozen=True, kw_only=True)
class DropConfig:
    """Chances that a sample goes without a condition (paper)."""

    reference: float = 0.1
    pose: float = 0.1
    motion: float = 0.1
    reference_tokens: float = 0.3  # share of the reference tokens that a sample which has them goes without


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes of the driving face crop, never of target or reference."""

    stretch: float = 1.3  # one axis is stretched by 1 to this much (paper)
    warp_min: float = 0.02  # shift of the warp's knots, in sides of the crop (paper: piecewise affine .02-.04)
    warp_max: float = 0.04
    warp_knots: int = 4  # per axis (ours)
    colour: float = 0.2  # brightness, contrast and saturation change by up to this share (ours)
    noise: float = 0.05  # largest spread of the added noise, for values in [-1, 1] (ours)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the losses. The masked terms are the main squared error again, inside boxes."""

    face: float = 1.0  # (paper: the same error masked; equal weight)
    eyes_and_mouth: float = 1.0
    pixel: float = 1.0  # L2 of decoded pixels in [-1, 1]
    perceptual: float = 2.0  # (paper)
    adversarial: float = 0.05  # (paper)
    lpips: str = ""  # folder with vgg16 and lpips_vgg weights; empty: a fixed-filter distance that needs none


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """StyleGAN2-type residual discriminator."""

    channel_base: int = 32768  # channels at side s: channel_base / s, at most max_channels (StyleGAN2)
    max_channels: int = 512
    deviation_group: int = 4  # samples that share a minibatch deviation (paper)
    generator_from_step: int = 3000  # the networks see the adversarial term from here on (paper)
    train_from_step: int = 5000  # the discriminator is updated from here on (paper)


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Image-level hybrid motion."""

    noise_offset: float = 0.05  # spread of the noise that a whole channel shares (paper)
    inference_form: bool = False  # frames begin as the noised portrait, as in use, instead of as noised truth (ours)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Fewer-step appearance distillation."""

    inference_form: bool = False  # begin as the noised portrait and step by DDIM instead of re-noising (ours)


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Sliding training of the temporal modules."""

    frames: int = 40  # per clip (paper)
    frame_stride: int = 4  # frames of the recording from one to the next (paper)
    gradient_windows: tuple[int, ...] = (0, 3, 6)  # windows that end with an update (paper)
    inference_form: bool = False  # roll out through the engine itself, as in use (ours)
    keyframe_threshold: float = 17.0  # inference form: as `personalive animate --keyframe-threshold`
    keyframe_first_call: int = 4  # inference form: earlier than in use (10), or clips would end before (ours)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Sampled data. ``people`` and ``other_driver`` are of synthetic data only."""

    people: int = 2000  # synthetic people in training (ours)
    other_driver: float = 0.5  # share of drivers that are another person giving the same performance (ours)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stage of one run. The defaults are the published ones; see ``STAGE_VALUES`` and ``PRESETS``."""

    stage: Stage
    preset: str = "full"
    steps: int = 30_000  # updates; of stage stream: clips, with one update per gradient window (paper)
    batch: int = 4  # samples computed at a time; batch x accumulate is the size that counts
    accumulate: int = 8  # batches per update
    seed: int = 0
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    journal: JournalConfig = field(default_factory=JournalConfig)
    drop: DropConfig = field(default_factory=DropConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    data: DataConfig = field(default_factory=DataConfig)


Overrides = Mapping[str, Any]

# What a stage changes, whatever the preset (paper: batch 32, 32 and 8; the split over devices is ours).
STAGE_VALUES: Mapping[str, Overrides] = MappingProxyType(
    {
        "motion": {},
        "distill": {"batch": 2, "accumulate": 16},
        "stream": {"steps": 10_000, "batch": 1, "accumulate": 8},
    }
)

_TINY = {
    "steps": 400,
    "batch": 2,
    "accumulate": 1,
    "optimiser.lr": 5e-5,
    "optimiser.discriminator_lr": 1e-4,
    "optimiser.warmup_steps": 20,
    "compute.precision": "float32",
    "compute.recompute": False,
    "journal.log_every_steps": 1,
    "journal.held_out_every_steps": 100,
    "journal.held_out_samples": 8,
    "journal.sheet_every_steps": 100,
    "journal.checkpoint_every_steps": 50,
    "discriminator.channel_base": 2048,
    "discriminator.max_channels": 64,
    "discriminator.generator_from_step": 40,  # in the proportions of the paper
    "discriminator.train_from_step": 65,
    # the bundled model's highest level still shows the portrait: it was never shown pure noise
    "motion.inference_form": True,
    "distill.inference_form": True,
    "stream.inference_form": True,
}

# Named overrides, laid over the stage's values: for every stage, and for one.
PRESETS: Mapping[str, Mapping[str, Overrides]] = MappingProxyType(
    {
        "full": {},  # one GPU with 80 GB, released weights
        "tiny": {
            "all": _TINY,
            "stream": {"steps": 100, "batch": 1, "journal.held_out_samples": 2, "journal.sheet_rows": 2},
        },
    }
)

# A run may be repeated with other values of these; all others are fixed when it begins.
CHANGEABLE = ("steps", "journal.")
