"""Values that stages and named presets of `personalive train` change in its settings. Imports no pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

Stage = Literal["autoencoder", "extractor", "motion_encoder", "motion", "distill", "stream", "detail"]
STAGES: tuple[Stage, ...] = get_args(Stage)
PAPER_STAGES: tuple[Stage, ...] = ("motion", "distill", "stream")
SCRATCH = "scratch"  # weights: the preset's networks, freshly initialised
SYNTHETIC = "synthetic"  # data: heads rendered as they are needed
Overrides = Mapping[str, Any]

# What a stage changes, whatever the preset (paper: batch 32, 32 and 8; the split into batches is ours).
STAGE_VALUES: Mapping[str, Overrides] = MappingProxyType(
    {
        "distill": {"batch": 2, "accumulate": 16},
        "stream": {"steps": 10_000, "batch": 1, "accumulate": 8},
        "detail": {"batch": 2, "accumulate": 16},
    }
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Named overrides, laid over a stage's values, and what a run begins with where nothing else is named."""

    values: Overrides = field(default_factory=dict)  # for every stage
    stage_values: Mapping[str, Overrides] = field(default_factory=dict)
    stages: tuple[Stage, ...]  # of `personalive train all`, in order
    weights: str  # of one stage
    all_weights: str  # of `personalive train all`
    data: str | None = None


_TINY = {
    "batch": 4,
    "accumulate": 1,
    "optimiser.schedule": "cosine",
    "optimiser.warmup_steps": 100,
    "optimiser.beta2": 0.98,
    "optimiser.discriminator_lr": 5e-4,
    "optimiser.discriminator_beta1": 0.0,
    "average.on": True,
    "average.half_life_steps": 100,
    "compute.recompute": False,
    "journal.held_out_samples": 8,
    "data.workers": 1,
    "data.cached": 4_000,
    # the bundled model's highest level still shows the portrait: it is never shown pure noise
    "motion.inference_form": True,
    "distill.inference_form": True,
    "stream.inference_form": True,
    "images.frames": 6,
    "images.second_reference": 0.25,
    "drop.reference": 0.0,
    "drop.pose": 0.0,
    "drop.motion": 0.0,
    "drop.reference_tokens": 0.0,
    "loss.domain": "latents",
    "loss.robust_from": 0.1,
    "loss.by_channel": True,
    "loss.eyes_and_mouth": 7.0,
    "loss.adversarial": 0.5,
    "discriminator.generator_from_step": 40,
    "discriminator.train_from_step": 0,
    "freeze": ("motion_encoder",),  # its tokens give the expression and not the person; pixels would undo that
}
_TINY_STAGES: Mapping[str, Overrides] = {
    "autoencoder": {"steps": 20_000, "optimiser.lr": 1e-3},
    "extractor": {"steps": 6_000, "batch": 12, "optimiser.lr": 4e-4, "optimiser.clip_norm": 10.0},
    "motion_encoder": {"steps": 4_000, "batch": 24, "optimiser.lr": 1e-3, "data.other_driver": 1.0, "freeze": ()},
    "motion": {"steps": 10_000, "optimiser.lr": 8e-4, "motion.top_share": 0.8},
    "distill": {"steps": 10_000, "optimiser.lr": 6e-4},
    "stream": {
        "steps": 1_500,
        "batch": 2,
        "optimiser.lr": 5e-4,
        "stream.frame_stride": 1,
        "loss.change": 0.5,
        "loss.adversarial": 0.0,
        "data.cached": 0,
        "journal.held_out_samples": 2,
        "journal.sheet_rows": 2,
    },
    "detail": {"steps": 1_500, "optimiser.lr": 1e-3},
}
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # the released weights, GPUs with 40 GB or more
        "full": Preset(stages=PAPER_STAGES, weights="auto", all_weights="auto"),
        "tiny": Preset(
            values=_TINY,
            stage_values=_TINY_STAGES,
            stages=STAGES,
            weights="tiny",
            all_weights=SCRATCH,
            data=SYNTHETIC,
        ),
    }
)

# A run may be repeated with other values of these; all others are fixed when it begins.
CHANGEABLE = ("steps", "journal.", "data.workers")
