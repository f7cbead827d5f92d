"""What is scored, and what becomes a training set (ours unless stated)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is scored, how finely, and what the report shows."""

    first_seed: int = 10_000_000  # people and performances from here on are never used in training
    driver_offset: int = 5_000  # cross-reenactment: person n is driven by this many people later
    people: int = 8  # synthetic heads without a number
    frames: int = 64  # per synthetic case
    size_px: int = 256  # side of the pictures compared where no model decides it
    drift_frames: int = 100  # at each end of a run; shorter runs than twice this have no drift
    reading_steps: int = 9  # renders tried per reading of mouth, blink or gaze
    read_every_frames: int = 4  # mouth and eyes are read on every so many frames
    region_margin_px: int = 3  # around the mouth or the eyes, where they are compared
    max_blink: float = 0.5  # gaze is not read where the true lids are closed further than this
    timing_warmup_calls: int = 3  # at the start of each case, not timed
    fvd_clip_frames: int = 16  # paper's protocol: I3D features of clips; clips do not overlap
    video_suffixes: tuple[str, ...] = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
    shown_columns: int = 8  # moments of each case in the report's pictures
    shown_cases: int = 12  # per kind of reenactment
    shown_cell_px: int = 128
    jpeg_quality: int = 85
    inputs_crf: int = 6  # x264 quality of driving films written for other methods: nearly lossless


# --- training sets made from videos (ours) ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What `personalive data prepare` keeps and how. Limits were set on real clips, sharp and blurred on purpose."""

    suffixes: tuple[str, ...] = (  # of the files taken for videos, in any case
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
        *(".flv", ".wmv", ".3gp", ".ogv"),
    )
    fps: int = 25  # (paper: training at 25 fps)
    size_px: int = 512  # side of the framed pictures (paper)
    min_size_px: int = 64
    max_size_px: int = 2048
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
    max_repeated_share: float = 0.25  # of the frames that may show the picture before: videos under 19 fps
    jpeg_quality: int = 95  # 4:4:4


@dataclass(frozen=True, kw_only=True)
class PartBoxConfig:
    """Eye and mouth boxes. Extents are in eye distances from the landmarks: left, top, right, bottom.

    Measured on synthetic heads, whose true regions are known; the shares on the same faces for both detectors.
    """

    eye: tuple[float, float, float, float] = (-0.36, -0.24, 0.36, 0.2)  # around each eye
    mouth: tuple[float, float, float, float] = (-0.56, -0.24, 0.56, 0.4)  # around the middle of its corners
    min_eye_distance: float = 0.35  # in face widths: heads turned away keep boxes of a sensible size
    # where the landmarks lie in the face box where a detector finds none, in widths and heights
    eye_shares: tuple[float, float] = (0.25, 0.41)  # of the eye on the left; the other one mirrored
    mouth_share: float = 0.75  # height
