"""Differences that are allowed between the keys of weight files and those of our modules, and why.

Everything else must match exactly. The modules know nothing of this: conversion lives at the border.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Rename:
    """Keys that match ``pattern`` (whole key) become ``replacement``."""

    pattern: str
    replacement: str
    reason: str


@dataclass(frozen=True)
class Exempt:
    """Keys that match ``pattern`` (whole key) need not match."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class KeyRules:
    """The exceptions of one part.

    ``ignored``: may be in the file although the module has no such key. ``optional``: may be missing from the
    file although the module has it; the module's own value stays. ``flattened``: 1x1 convolution weights
    (O, I, 1, 1) that are linear weights (O, I) in the module. ``extra_allowed``: any other key may be in the file
    too; it is left out with a warning.
    """

    renames: tuple[Rename, ...] = ()
    ignored: tuple[Exempt, ...] = ()
    optional: tuple[Exempt, ...] = ()
    flattened: tuple[Exempt, ...] = ()
    extra_allowed: bool = False

    def canonical(self, key: str) -> str:
        """The module's name for a key of the file."""
        for rename in self.renames:
            if match := re.fullmatch(rename.pattern, key):
                return match.expand(rename.replacement)
        return key

    def canonical_shape(self, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The module's shape for a tensor of the file; ``key`` is canonical."""
        if len(shape) == 4 and shape[2:] == (1, 1) and _matches(self.flattened, key):
            return shape[:2]
        return shape

    def ignores(self, key: str) -> bool:
        """Return True if a file may have ``key`` although the module does not."""
        return _matches(self.ignored, key)

    def allows_missing(self, key: str) -> bool:
        """Return True if a file may lack ``key`` although the module has it."""
        return _matches(self.optional, key)


def _matches(exempts: tuple[Exempt, ...], key: str) -> bool:
    return any(re.fullmatch(exempt.pattern, key) for exempt in exempts)


NO_RULES = KeyRules()

_OLD_VAE = "attention key of diffusers before 0.12, still in the published sd-vae-ft-mse"
_OLD_VAE_NAMES = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
_VAE_ATTENTION = r"((?:en|de)coder\.mid_block\.attentions\.\d+)"
_COUNTER = Exempt(r".*\.num_batches_tracked", "training counter of BatchNorm, not read at inference")
_INDICES = Exempt(r"idx_tensor", "the constant 0..65; some copies of the file have it, some do not")
_POSITIONS = Exempt(r".*\.position_ids", "the constant 0..256; stored by older transformers only")

KEY_RULES: Mapping[str, KeyRules] = MappingProxyType(
    {
        "vae": KeyRules(
            renames=tuple(
                Rename(rf"{_VAE_ATTENTION}\.{old}\.(weight|bias)", rf"\1.{new}.\2", _OLD_VAE)
                for old, new in _OLD_VAE_NAMES
            ),
            flattened=(
                Exempt(
                    rf"{_VAE_ATTENTION}\.(to_q|to_k|to_v|to_out\.0)\.weight",
                    "stored as 1x1 convolutions by files converted from the original latent-diffusion code",
                ),
            ),
        ),
        "clip": KeyRules(ignored=(_POSITIONS,), optional=(_POSITIONS,)),
        "reference_unet": KeyRules(
            ignored=(
                Exempt(
                    r"(conv_norm_out|conv_out)\.(weight|bias)",
                    "output head that a full U-Net has; the reference net's output is never used",
                ),
            )
        ),
        # The original loads denoising_unet, temporal_module and motion_extractor with strict=False: a released file
        # may hold keys that no network reads, and nobody would notice there.
        "denoising_unet": KeyRules(extra_allowed=True),
        "motion_encoder": KeyRules(ignored=(_COUNTER,), optional=(_COUNTER,)),
        "motion_extractor": KeyRules(
            ignored=(
                _INDICES,
                Exempt(r"detector\.fc_exp\.(weight|bias)", "expression head of LivePortrait, not used here"),
            ),
            optional=(_INDICES,),
            extra_allowed=True,
        ),
        "pose_guider": NO_RULES,
        "detail": NO_RULES,
    }
)
