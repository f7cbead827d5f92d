"""Metrics of the report: label, number of digits, better direction and explanation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """Column of the tables."""

    label: str
    better: Literal["lower", "higher"]
    digits: int
    about: str

    @property
    def heading(self) -> str:
        """Label with an arrow that points to the better side."""
        return f"{self.label} {'↓' if self.better == 'lower' else '↑'}"


def _correlation(label: str, what: str) -> MetricInfo:
    return MetricInfo(label, "higher", 2, f"correlation of {what} with the true motion, over the frames of a case")


_BY_RENDERS = "estimated by comparing with renders of the true head"

METRICS: Mapping[str, MetricInfo] = {
    "l1": MetricInfo("L1", "lower", 4, "mean absolute difference to the ground truth, 0..1"),
    "psnr": MetricInfo(
        "PSNR dB", "higher", 2, "peak signal-to-noise ratio to the ground truth, mean over frames that are not equal"
    ),
    "ssim": MetricInfo("SSIM", "higher", 3, "structural similarity to the ground truth (11 px Gaussian window)"),
    "lpips": MetricInfo("LPIPS", "lower", 3, "learned perceptual distance (VGG) to the ground truth"),
    "tlp": MetricInfo(
        "tLP", "lower", 2, "difference in LPIPS of neighbouring frames to the true (else driving) video, x1000"
    ),
    "id_sim": MetricInfo(
        "ID-SIM", "higher", 3, "cosine of ArcFace embeddings with the portrait's, over frames with a face"
    ),
    "aed": MetricInfo("AED", "lower", 3, "L1 of SMIRK's expression parameters to the driver's"),
    "apd": MetricInfo("APD", "lower", 3, "L1 of SMIRK's pose parameters to the driver's"),
    "expression_error": MetricInfo(
        "expression", "lower", 3, "mean absolute difference of 51 blendshapes to the driver's, each 0..1 (as AED)"
    ),
    "pose_error_deg": MetricInfo(
        "pose °", "lower", 1, "mean absolute difference of the head's yaw, pitch and roll to the driver's (as APD)"
    ),
    **{
        name: MetricInfo(label, "higher", 2, f"correlation of {what} with the driver's, read by a landmark network")
        for name, label, what in (
            ("jaw_follows", "jaw", "jawOpen"),
            ("blink_follows", "lids", "the mean of eyeBlinkLeft and eyeBlinkRight"),
            ("smile_follows", "smile", "the mean of mouthSmileLeft and mouthSmileRight"),
            ("yaw_follows", "head yaw", "the head's yaw"),
        )
    },
    "fvd": MetricInfo(
        "FVD", "lower", 1, "Fréchet distance of I3D features of 16-frame clips to the true (else driving) clips"
    ),
    "yaw": _correlation("yaw", "yaw, estimated by the model's own motion extractor,"),
    "pitch": _correlation("pitch", "pitch, estimated by the model's own motion extractor,"),
    "mouth": _correlation("mouth", f"the mouth's opening, {_BY_RENDERS},"),
    "blink": _correlation("blink", f"the lids' closing, {_BY_RENDERS},"),
    "gaze_x": _correlation("gaze x", f"the eyes' direction to the side, {_BY_RENDERS},"),
    "gaze_y": _correlation("gaze y", f"the eyes' direction up and down, {_BY_RENDERS},"),
    "flicker": MetricInfo(
        "flicker",
        "lower",
        4,
        "how much frames stick out between their neighbours, 0..1; compare with the ground truth's",
    ),
    "drift": MetricInfo("drift L1", "lower", 4, "L1 of the last 100 frames minus that of the first 100"),
    "drift_colour": MetricInfo(
        "drift colour", "lower", 4, "distance of the mean colour to the portrait's, last 100 frames minus first 100"
    ),
    "fps": MetricInfo("FPS", "higher", 2, "frames per second of engine time: condition, denoise, decode"),
    "chunk_ms": MetricInfo("chunk ms", "lower", 0, "mean time between chunks that leave (the paper's latency)"),
    "photon_ms": MetricInfo(
        "m2p ms", "lower", 0, "median time from a driving frame's arrival to its output's departure, at full speed"
    ),
    "photon_p95_ms": MetricInfo("m2p p95 ms", "lower", 0, "the same, 95th percentile"),
}
NO_VALUE, INFINITE = "—", "∞"
ANGLES = ("yaw", "pitch")
EXPRESSIONS = ("mouth", "blink", "gaze_x", "gaze_y")
FACES = ("expression_error", "pose_error_deg", "jaw_follows", "blink_follows", "smile_follows", "yaw_follows")
SPEED = ("fps", "chunk_ms", "photon_ms", "photon_p95_ms")


def format_value(name: str, value: float | None) -> str:
    """Text of a metric's value; a dash where there is none."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return INFINITE if math.isinf(value) else f"{value:.{METRICS[name].digits}f}"
