"""Limits and encoder settings of images, videos and sound (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """Limits and encoder settings."""

    max_image_pixels: int = 100_000_000  # a 10,000 x 10,000 image; larger ones are refused unread
    min_image_side_px: int = 32
    video_crf: int = 18  # x264 quality, lower is better
    video_preset: str = "veryfast"
    audio_bit_rate: int = 160_000
    still_fps: int = 25  # frame rate given to a still used as a driving clip
    still_seconds: float = 2.0
    background_grey: int = 128  # 0..255: what shows through a transparent image
    animation_default_ms: int = 100  # shown time of a GIF frame that asks for 10 ms or less, as browsers do
    unspecified_hd_height_px: int = 576  # untagged video taller than this is BT.709, else BT.601
    default_fps: int = 25  # for clips that state no rate or, like browser recordings, an absurd one
    max_plausible_fps: int = 300
    default_ticks_per_s: int = 90_000  # time stamps of a video written without a source's time base
    clock_restart_s: float = 1.0  # time stamps that jump back further than this start a new count
    missing_end_s: float = 1.0  # a clip that ends this much before its header says is reported as cut off
    audio_gap_s: float = 0.01  # re-encoded sound is moved when its time stamps are off by more than this
    audio_preroll_s: float = 0.25  # sound is read from this long before a cut
    decoder_memory_bytes: int = 4_000_000_000  # of a process that decodes one file of others
    decoder_frame_s: float = 15.0  # in which such a process must open the file, and then make each frame
