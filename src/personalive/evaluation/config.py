"""Defaults of the evaluation (ours unless stated)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Datasets, sampling of the metrics, and layout of the report."""

    first_seed: int = 10_000_000  # people and performances from here on are never used in training
    driver_offset: int = 5_000  # cross-reenactment: person n is driven by this many people later
    people: int = 8  # synthetic heads without a number
    frames: int = 64  # per synthetic case
    size_px: int = 256  # side of the images compared where no model decides it
    drift_frames: int = 100  # at each end of a run; shorter runs than twice this have no drift
    estimate_steps: int = 9  # renders tried per estimate of mouth, blink or gaze
    estimate_every_frames: int = 4  # mouth and eyes are estimated on every so many frames
    region_margin_px: int = 3  # around the mouth or the eyes, where they are compared
    max_blink: float = 0.5  # gaze is not estimated where the true lids are closed further than this
    least_blendshape: float = 0.1  # range of a driver's blendshape below which nothing is to be followed
    least_yaw_deg: float = 5.0  # the same of its yaw
    timing_warmup_calls: int = 3  # at the start of each case, not timed
    fvd_clip_frames: int = 16  # paper's protocol: I3D features of clips; clips do not overlap
    video_suffixes: tuple[str, ...] = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
    preview_columns: int = 8  # frames of each case in the report's previews
    preview_cases: int = 12  # per kind of reenactment
    preview_cell_px: int = 128
    jpeg_quality: int = 85
    inputs_crf: int = 6  # x264 quality of driving videos written for other methods: nearly lossless
