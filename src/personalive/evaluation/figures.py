"""Every figure of the report: its name, how it is written, which way is better, and what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of the tables."""

    label: str
    better: Literal["lower", "higher"]
    digits: int
    about: str

    @property
    def heading(self) -> str:
        """The label with an arrow that points to the better side."""
        return f"{self.label} {'↓' if self.better == 'lower' else '↑'}"


def _share(label: str, what: str) -> Figure:
    return Figure(label, "higher", 2, f"correlation of {what} with the true motion, over the frames of a case")


_BY_RENDERS = "read by comparing with renders of the true head"

FIGURES: Mapping[str, Figure] = {
    "l1": Figure("L1", "lower", 4, "mean absolute difference to the true pictures, 0..1"),
    "psnr": Figure(
        "PSNR dB", "higher", 2, "peak signal-to-noise ratio to the true pictures, mean over frames that are not equal"
    ),
    "ssim": Figure("SSIM", "higher", 3, "structural similarity to the true pictures (11 px Gaussian window)"),
    "lpips": Figure("LPIPS", "lower", 3, "learned perceptual distance (VGG) to the true pictures"),
    "tlp": Figure(
        "tLP", "lower", 2, "difference in LPIPS of neighbouring frames to the true (else driving) film, x1000"
    ),
    "id_sim": Figure(
        "ID-SIM", "higher", 3, "cosine of ArcFace embeddings with the portrait's, over frames with a face"
    ),
    "aed": Figure("AED", "lower", 3, "L1 of SMIRK's expression parameters to the driver's"),
    "apd": Figure("APD", "lower", 3, "L1 of SMIRK's pose parameters to the driver's"),
    "fvd": Figure(
        "FVD", "lower", 1, "Fréchet distance of I3D features of 16-frame clips to the true (else driving) clips"
    ),
    "yaw": _share("yaw", "yaw, read by the model's own motion extractor,"),
    "pitch": _share("pitch", "pitch, read by the model's own motion extractor,"),
    "mouth": _share("mouth", f"the mouth's opening, {_BY_RENDERS},"),
    "blink": _share("blink", f"the lids' closing, {_BY_RENDERS},"),
    "gaze_x": _share("gaze x", f"the eyes' direction to the side, {_BY_RENDERS},"),
    "gaze_y": _share("gaze y", f"the eyes' direction up and down, {_BY_RENDERS},"),
    "flicker": Figure(
        "flicker",
        "lower",
        4,
        "how much frames stick out between their neighbours, 0..1; compare with the true pictures'",
    ),
    "drift": Figure("drift L1", "lower", 4, "L1 of the last 100 frames minus that of the first 100"),
    "drift_colour": Figure(
        "drift colour", "lower", 4, "distance of the mean colour to the portrait's, last 100 frames minus first 100"
    ),
    "fps": Figure("FPS", "higher", 2, "frames per second of engine time: condition, denoise, decode"),
    "chunk_ms": Figure("chunk ms", "lower", 0, "mean time between chunks that leave (the paper's latency)"),
    "photon_ms": Figure(
        "m2p ms", "lower", 0, "median time from a driving frame's arrival to its picture's departure, at full speed"
    ),
    "photon_p95_ms": Figure("m2p p95 ms", "lower", 0, "the same, 95th percentile"),
}
NONE, INFINITE = "—", "∞"
READ_BY_MODEL = ("yaw", "pitch")
READ_BY_RENDERS = ("mouth", "blink", "gaze_x", "gaze_y")
SPEED = ("fps", "chunk_ms", "photon_ms", "photon_p95_ms")


def written(name: str, value: float | None) -> str:
    """A figure for reading; a dash where there is none."""
    if value is None or math.isnan(value):
        return NONE
    return INFINITE if math.isinf(value) else f"{value:.{FIGURES[name].digits}f}"
