"""Defaults of training sets made from videos (ours unless stated)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from personalive.config import ModelConfig

_RECORDED = ("size_px", "fps", "framing_scale", "min_clip_s", "detector")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Limits of `personalive data prepare`. They were set on real clips, sharp and blurred on purpose."""

    suffixes: tuple[str, ...] = (  # of the files taken for videos, in any case
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
        *(".flv", ".wmv", ".3gp", ".ogv", ".mxf", ".dv", ".m2v", ".y4m"),
    )
    fps: int = 25  # (paper: training at 25 fps)
    size_px: int = 512  # side of the framed images (paper)
    min_size_px: int = 64
    max_size_px: int = 2048
    framing_scale: float = ModelConfig.framing_scale  # side of the square in sides of the face
    detector: str = ""  # name of what finds the faces
    resample_slack: float = 0.1  # of a step: how much further off a frame may be that avoids showing one twice
    max_gap_s: float = 0.2  # a longer pause between two frames of a video ends the clip
    min_clip_s: float = 2.0  # shorter ones are dropped: a pair wants frames 30 apart, 1.2 s
    max_clip_s: float = 30.0  # longer shots become several clips
    detect_every_frames: int = 2  # boxes between two detections are interpolated
    box_smoothing_frames: float = 1.5  # standard deviation of the Gaussian over time
    min_found_share: float = 0.8  # of the detections in a clip, at least so many must find the face
    max_enlargement: float = 2.0  # output side over the square's side in the video; more looks blurred
    min_face_share: float = 0.2  # larger side of the face over the side of the square, median
    min_sharpness: float = 0.01  # faces tried: 0.05 to 0.8; with a Gaussian of 1 % of the side 0.003 to 0.02
    sharpness_side_px: int = 128  # side that faces are brought to before sharpness is measured
    second_face_share: float = 0.5  # a second face of at least this share of the first one's side counts
    max_second_share: float = 0.1  # of the detections that may show a second face
    max_repeated_share: float = 0.25  # of the frames that may show the image before: videos under 19 fps
    jpeg_quality: int = 95  # 4:4:4

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that decide the images of a set; one set has one of each."""
        return {name: getattr(self, name) for name in _RECORDED}
