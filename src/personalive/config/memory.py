"""What a model may take of a device's memory: presets, named after the cards they are made for (ours).

What each comes to for the released weights is computed by ``benchmarks/memory.py``: docs/performance.md, "Memory".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

RELEASED_VALUES = 3_022_732_085  # of all networks (weights); two bytes each in half precision


@dataclass(frozen=True, kw_only=True)
class MemoryPreset:
    """What is done to save memory. Nothing of it changes a picture by more than rounding."""

    name: str  # GB of the card
    min_device_bytes: int  # `auto` takes it from here up: cards report up to a tenth less than they are sold as
    encoders_rest: bool = False  # image encoder and VAE encoder wait in main memory and come for each portrait
    decode_frames: int | None = None  # decoded at a time; None: a whole chunk
    decode_beside: bool = False  # on CUDA, decoded while the next call runs, which takes memory for both


FULL = MemoryPreset(name="16", min_device_bytes=14_500_000_000, decode_beside=True)  # saves nothing
PRESETS: Mapping[str, MemoryPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            # The encoders are a tenth of the weights and wanted once per portrait. Decoding two frames at a time
            # takes less than the denoiser does before it, so slices of one would save nothing.
            MemoryPreset(name="8", min_device_bytes=0, encoders_rest=True, decode_frames=2),
            # All weights stay, so that a portrait is swapped without waiting for any.
            MemoryPreset(name="12", min_device_bytes=10_500_000_000, decode_frames=2),
            FULL,
        )
    }
)
