"""Live streams: controls, sessions, limits (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ControlLimits:
    """Ranges of what a person may turn."""

    max_strength: float = 2.0  # of expression and head motion; beyond, faces fall apart
    max_smoothing: float = 0.95  # a half-life of 13 frames
