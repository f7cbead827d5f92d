"""Historical keyframes: finished frames that become further reference images (paper: HKM)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from personalive.config import KeyframeConfig
from personalive.device import HostCopy
from personalive.engine.state import Reference
from personalive.models.attention import KV


def is_keyframe(
    config: KeyframeConfig, *, bank: Sequence[HostCopy], candidate: HostCopy, call: int, threshold: float
) -> bool:
    """Tell whether the candidate is far from everything stored and there is room for it.

    Args:
        bank: motion embeddings (1, 1, T, K) of the portrait and the keyframes so far.
        candidate: that of the first frame that leaves.
        call: number of this call, counted from 1.
        threshold: L2 distance of flattened embeddings (tau in the paper; infinity keeps none).
    """
    if call < config.first_call or len(bank) > config.maximum:
        return False
    stored = torch.cat([motion.wait() for motion in bank], dim=1)
    distances = torch.linalg.vector_norm((stored - candidate.wait()).flatten(2).float(), dim=-1)
    return bool(distances.min() > threshold)


def extend(reference: Reference, kv: Mapping[str, KV]) -> Reference:
    """The reference with one more image's keys and values (1, N, C_i) behind those it has."""
    joined = {
        name: KV(torch.cat([old.key, kv[name].key], dim=1), torch.cat([old.value, kv[name].value], dim=1))
        for name, old in reference.kv.items()
    }
    return dataclasses.replace(reference, kv=joined)
