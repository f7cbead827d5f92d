"""Defaults of offline videos (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ContactSheetConfig:
    """Image that shows a whole video at a glance."""

    columns: int = 8  # moments of the video
    cell_px: int = 192  # side of one image
    gap_px: int = 6
    background_grey: int = 255


@dataclass(frozen=True, kw_only=True)
class VideoSizeConfig:
    """Limits of a video's side where another than the model's is asked for."""

    min_side_px: int = 32
    max_side_px: int = 4096  # three side by side still fit what H.264 players accept


@dataclass(frozen=True, kw_only=True)
class BeginningConfig:
    """Search in the beginning of a driver."""

    start_s: float = 10.0  # in which the most neutral frame is searched
    pose_s: float = 4.0  # from which it is seen where the camera stands
    samples: int = 40  # of the search, and a quarter for the camera alone
    aside_deg: float = 15.0  # usual turn or nod from which a driver counts as filmed from the side
    steady_deg: float = 8.0  # most between the first frame and the usual one


@dataclass(frozen=True, kw_only=True)
class PartsConfig:
    """Length of the parts that a video is made in: what a run that is killed loses at most."""

    part_s: float = 60.0  # of the video
    cpu_part_s: float = 10.0  # as x264 places key frames, so that joined parts need none more

    def seconds(self, device: str) -> float:
        """Length of a part that is made on such a device."""
        return self.cpu_part_s if device == "cpu" else self.part_s


@dataclass(frozen=True, kw_only=True)
class MotionFileConfig:
    """Limits of a motion file: files come from strangers too."""

    max_bytes: int = 200_000_000  # 57 minutes at 25 fps of the released model's motion
    max_header_bytes: int = 16_384  # ours need 800
    max_frames: int = 100_000
    max_seconds: float = 86_400.0
    max_clock_hz: int = 1_000_000_000  # finest time base: nanoseconds
    max_magnitude: float = 10_000.0  # of any number in it: float16 ends at 65,504


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Limits of a manifest, and the files that are taken from folders, by suffix in any case."""

    max_bytes: int = 16_000_000
    max_rows: int = 100_000
    max_fetched_bytes: int = 20_000_000_000  # of an input at a URL
    max_record_bytes: int = 1_000_000  # of a video's record at a URL; ours have 3,000
    portrait_suffixes: tuple[str, ...] = (
        *(".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif"),
        *(".bmp", ".tif", ".tiff"),
    )
    driving_suffixes: tuple[str, ...] = (
        *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
        *(".flv", ".wmv", ".3gp", ".ogv", ".mxf", ".dv", ".y4m", ".safetensors"),
    )
