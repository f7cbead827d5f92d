"""The paper's own results, for orientation: other data, other hardware. Source: PersonaLive, CVPR 2026.

Self-reenactment on TalkingHead-1KH, cross-reenactment on LV100, speed on one H100.
"""

from __future__ import annotations

from collections.abc import Mapping

_SELF = ("l1", "ssim", "lpips", "tlp")
_CROSS = ("id_sim", "aed", "apd", "fvd", "tlp")
_SPEED = ("fps", "chunk_ms")
_ROWS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
    "LivePortrait": ((0.043, 0.821, 0.137, 20.40), (0.723, 0.729, 0.027, 557.2, 13.51), ()),
    "X-Portrait": ((0.049, 0.777, 0.173, 25.87), (0.678, 0.823, 0.061, 587.8, 24.52), (0.851, 14100)),
    "Follow-Your-Emoji": ((0.045, 0.803, 0.144, 26.92), (0.773, 0.911, 0.043, 696.5, 35.13), (1.558, 7793)),
    "Megactor-Σ": ((0.055, 0.766, 0.183, 23.55), (0.606, 0.855, 0.079, 585.3, 28.86), (2.216, 6918)),
    "X-NeMo": ((0.077, 0.689, 0.267, 25.11), (0.691, 0.679, 0.022, 639.1, 18.10), (1.281, 15320)),
    "HunyuanPortrait": ((0.043, 0.801, 0.137, 22.33), (0.644, 0.804, 0.069, 620.4, 16.84), (1.443, 14910)),
    "PersonaLive": ((0.039, 0.807, 0.129, 21.31), (0.698, 0.703, 0.030, 520.6, 12.83), (15.82, 253)),
}


def published(kind: str) -> dict[str, dict[str, float]]:
    """Metrics of each published method for "self" or "cross", speed included."""
    names = _SELF if kind == "self" else _CROSS
    found = {}
    for method, (of_self, of_cross, speed) in _ROWS.items():
        figures = dict(zip(names, of_self if kind == "self" else of_cross, strict=True))
        found[method] = figures | (dict(zip(_SPEED, speed, strict=True)) if speed else {})
    return found
