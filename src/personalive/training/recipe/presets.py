"""Values that stages and named presets of `personalive train` change in its settings. Imports no pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

Stage = Literal["motion", "distill", "stream"]
STAGES: tuple[Stage, ...] = ("motion", "distill", "stream")
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
