"""Every default, once, with its unit and source.

Sources: "paper" is the PersonaLive paper (CVPR 2026); "weights" is a fact of the released checkpoints;
"ours" is a choice of this project. Model sizes given here are those of the released checkpoints; a folder
with ``personalive/config.json`` overrides them (the bundled small model does).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from personalive.errors import CheckpointError

PredictionType = Literal["epsilon", "residual"]
EntryType = Literal["portrait", "moved"]


@dataclass(frozen=True, kw_only=True)
class MotionEncoderConfig:
    """Face crop to motion tokens (weights: ``motion_encoder.pth``)."""

    face_size_px: int = 224  # side of the face crop; a multiple of 8
    width: int = 64  # channels after the first convolution; later stages have 2x and 4x
    landmark_maps: int = 68  # heat maps before the token head
    attention_width: int = 1024  # channels inside the three transformer inserts
    attention_heads: int = 8
    tokens: int = 32  # motion tokens per frame (paper: 1-D facial motion)
    token_width: int = 16


@dataclass(frozen=True, kw_only=True)
class MotionExtractorConfig:
    """Frame to head pose and implicit keypoints (weights: ``motion_extractor.pth``)."""

    input_size_px: int = 256
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    keypoints: int = 21
    angle_bins: int = 66


@dataclass(frozen=True, kw_only=True)
class PoseGuiderConfig:
    """Keypoint canvas to pose features (weights: ``pose_guider.pth``). Downsamples by 8."""

    canvas_size_px: int = 512
    widths: tuple[int, int, int, int] = (16, 32, 96, 256)


@dataclass(frozen=True, kw_only=True)
class CanvasConfig:
    """Keypoint canvas and face box (weights). Fixed: the networks know these drawings and no others."""

    points: tuple[int, ...] = (1, 2, 3, 4, 12, 15, 20)  # of the 21 keypoints, those that are drawn and boxed
    colours: tuple[tuple[int, int, int], ...] = (  # 8-bit RGB, in the order of ``points``
        (255, 0, 0),
        (255, 255, 0),
        (0, 255, 0),
        (0, 255, 255),
        (0, 0, 255),
        (255, 0, 255),
        (255, 0, 85),
    )
    radius_px: int = 4  # of a disc, at every canvas size
    box_scale: float = 1.7  # half side of the face box over the height from its centre to its topmost point
    box_before: float = 0.95  # share of the half side that lies left of and above the centre
    box_after: float = 1.05  # share that lies right of and below it


@dataclass(frozen=True, kw_only=True)
class HeadProxyConfig:
    """The ellipsoid that stands for a head, and how shoulders follow it (ours; fitted on synthetic heads).

    Canonical keypoint units; offsets are from the mean of the 21 keypoints. Lengths in ellipsoid radii where stated.
    """

    centre: tuple[float, float, float] = (0.0, -0.087, 0.297)
    radii: tuple[float, float, float] = (0.412, 0.592, 0.41)
    reach: tuple[float, float] = (1.07, 0.81)  # radii from the centre that move wholly with the head: above, below
    fade: tuple[float, float] = (0.37, 0.62)  # radii over which the movement ends: above, below
    below_softness: float = 0.08  # of the change from "above" to "below"
    neck: tuple[float, float, float] = (0.0, 0.403, 0.37)  # the joint that shoulders hang on
    shoulder_follow: float = 0.96  # share of the joint's movement
    shoulder_growth: float = 0.57  # share of the head's change of size
    shoulder_drop: float = 0.117  # below the joint, in half picture sides, where shoulders begin
    shoulder_softness: float = 0.036  # same unit


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Noise schedule (weights; note that beta_end is not Stable Diffusion's 0.012)."""

    beta_start: float = 0.00085
    beta_end: float = 0.02
    train_steps: int = 1000
    levels: tuple[int, ...] = (0, 333, 666, 999)  # timesteps in flight, cleanest first
    step: int = 333  # DDIM step length in timesteps
    prediction: PredictionType = "epsilon"  # the bundled model predicts what the sample lacks (ours)


@dataclass(frozen=True, kw_only=True)
class KeyframeConfig:
    """Historical keyframes (paper: HKM)."""

    threshold: float = 17.0  # L2 distance of flattened motion embeddings above which a frame is kept
    maximum: int = 3  # stored keyframes, the portrait not counted
    first_call: int = 10  # the first call (counted from 1) that may store one


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything about a model that its diffusers/transformers config files do not say."""

    image_size_px: int = 512
    chunk_frames: int = 4  # M in the paper: frames that enter and leave per call
    translation_gain: float = 0.5  # share of the driver's head shift that reaches the portrait (weights)
    scale_gain: float = 0.0  # power of the driver's change of size that does (weights: none)
    entry: EntryType = "portrait"  # what a frame enters as: the portrait, or that with its head moved (ours)
    interpolated_start: bool = True  # paper: MII; else the whole ease-in is driven by the first frame
    framing_scale: float = 1.9  # side of the square around the head, in sides of the detected face box (ours)
    motion_encoder: MotionEncoderConfig = field(default_factory=MotionEncoderConfig)
    motion_extractor: MotionExtractorConfig = field(default_factory=MotionExtractorConfig)
    pose_guider: PoseGuiderConfig = field(default_factory=PoseGuiderConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)

    def __post_init__(self) -> None:
        prediction = self.schedule.prediction
        for name, value, kind in (("entry", self.entry, EntryType), ("prediction", prediction, PredictionType)):
            if value not in (known := get_args(kind)):
                raise CheckpointError(f"personalive/config.json: {name} {value!r} is not known: {' or '.join(known)}")

    @property
    def window_frames(self) -> int:
        """Frames in flight (16 in the released model)."""
        return self.chunk_frames * len(self.schedule.levels)

    @property
    def warmup_frames(self) -> int:
        """Interpolated frames in flight before the first driving frame (12 in the released model)."""
        return self.window_frames - self.chunk_frames

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Build from the decoded ``personalive/config.json``.

        Raises:
            CheckpointError: a key that is not known, or a value of the wrong kind.
        """
        return _build(cls, raw, where="personalive/config.json")

    def to_json(self) -> dict[str, Any]:
        """The plain dictionary that ``from_json`` reads back."""
        return dataclasses.asdict(self)


def _build(kind: type, raw: Any, where: str) -> Any:
    if not isinstance(raw, Mapping):
        raise CheckpointError(f"{where}: expected an object, found {type(raw).__name__}")
    defaults, values = kind(), dict[str, Any]()
    for name, value in raw.items():
        if name not in {f.name for f in dataclasses.fields(kind)}:
            raise CheckpointError(f"{where}: unknown key {name!r}")
        default = getattr(defaults, name)
        if dataclasses.is_dataclass(default):
            values[name] = _build(type(default), value, f"{where}: {name}")
            continue
        given = tuple(value) if isinstance(value, list) else value
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(given, wanted) or isinstance(given, bool) != isinstance(default, bool):
            raise CheckpointError(f"{where}: {name} should be like {default!r}, found {given!r}")
        values[name] = given
    return kind(**values)


# --- framing and faces (ours unless stated) ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FramingConfig:
    """How a square is chosen around a head. Shares are of the detected face box's larger side."""

    portrait_scale: float = 1.9  # side of the portrait's square: head room like a portrait photo
    driving_scale: float = 1.9  # same, for the driving clip: room for the head to move
    motion_margin: float = 1.1  # side of the driving square in extents of the measured motion, at least
    up_shift: float = 0.1  # the square's centre lies this far above the face's centre
    square_tolerance: float = 0.02  # sides that differ by no more than this share count as square
    detect_side_px: int = 512  # pictures are shrunk to this longer side before detection
    min_score: float = 0.75  # YuNet confidence: faces tried had 0.92 and more, blurred noise up to 0.71
    min_face_share: float = 0.04  # a face narrower than this share of the picture's longer side is ignored
    scene_cut_level: float = 0.35  # histogram distance (0..1) between frames that means a cut
    histogram_bins: int = 6  # per colour channel; of 4, 6 and 8 the one that tells cuts best from flicker
    same_face_overlap: float = 0.5  # a face that overlaps its last box this much means there was no cut
    detect_every_frames: int = 4  # while the face is not lost; when lost, every frame is searched
    bridge_frames: int = 3  # missed detections in a row that do not yet count as a lost face
    look_ahead_frames: int = 12  # frames of a new shot that are measured before its square is fixed
    leave_frames: int = 12  # frames with the face lost, or not fitting the square, before choosing anew
    min_inside_share: float = 0.85  # a face with less of its visible area in the square does not fit it
    min_drive_share: float = 0.5  # with less than this inside, the frame counts as one without a face
    max_shrink: float = 2.0  # a face this many times smaller than when the square was chosen does not fit
    patience_frames: int = 250  # frames without any face at a clip's start before it is refused
    min_found_share: float = 0.5  # with the centre as fallback: below this, detections are not trusted
    reported_squares: int = 100  # squares kept for the run report


@dataclass(frozen=True, kw_only=True)
class HaarConfig:
    """The cascades that find faces when YuNet's file is not there. Shares as in ``FramingConfig``."""

    # cascade file and the neighbouring hits it needs, asked in this order
    cascades: tuple[tuple[str, int], ...] = (
        ("haarcascade_frontalface_alt2", 5),
        ("haarcascade_frontalface_default", 8),
    )
    detect_side_px: int = 320  # finds as much as 512 px did, in about 60 % of the time
    min_face_share: float = 0.08  # smallest square searched for, of the picture's longer side
    face_width: float = 0.77  # of the cascade's square: what YuNet reports for the same face (measured)
    face_height: float = 1.1


# --- media (ours) -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """Limits and encoder settings."""

    max_image_pixels: int = 100_000_000  # a 10,000 x 10,000 picture; larger ones are refused unread
    min_image_side_px: int = 32
    video_crf: int = 18  # x264 quality, lower is better
    video_preset: str = "veryfast"
    audio_bit_rate: int = 160_000
    still_fps: int = 25  # frame rate given to a still used as a driving clip
    still_seconds: float = 2.0
    background_grey: int = 128  # 0..255: what shows through a transparent picture
    animation_default_ms: int = 100  # shown time of a GIF frame that asks for less than 20 ms, as browsers do
    unspecified_hd_height_px: int = 576  # untagged video taller than this is BT.709, else BT.601
    default_fps: int = 25  # for clips that state no rate or, like browser recordings, an absurd one
    max_plausible_fps: int = 300
    default_ticks_per_s: int = 90_000  # time stamps of a film written without a source's time base
    clock_restart_s: float = 1.0  # time stamps that jump back further than this start a new count
    missing_end_s: float = 1.0  # a clip that ends this much before its header says is reported as cut off
    audio_gap_s: float = 0.01  # re-encoded sound is moved when its time stamps are off by more than this
    audio_preroll_s: float = 0.25  # sound is read from this long before a cut


# --- weight files (ours unless stated) ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WeightFilesConfig:
    """Reading and naming weight files."""

    max_config_bytes: int = 1 << 20  # a larger config.json is refused unread
    keys_shown: int = 3  # keys of each kind named in an error line; the rest is counted
    identity_samples: int = 16  # places of a large file that enter its identity
    identity_sample_bytes: int = 1 << 20  # bytes read at each; files up to the product are read whole


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Fetching weights from the Hugging Face hub or a mirror of it."""

    endpoint: str = "https://huggingface.co"
    chunk_bytes: int = 1 << 20
    timeout_s: float = 30.0  # without a single byte, or for one reply about a repository
    retries: int = 5  # reconnections in a row that brought nothing before giving up
    retry_pause_s: float = 2.0
    report_interval_s: float = 0.2  # least time between two progress reports on one file


# --- one film (ours) ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ContactSheetConfig:
    """The picture that shows a whole film at a glance."""

    columns: int = 8  # moments of the film
    cell_px: int = 192  # side of one picture
    gap_px: int = 6
    background_grey: int = 255


@dataclass(frozen=True, kw_only=True)
class FilmSizeConfig:
    """Limits of a film's side where another than the model's is asked for."""

    min_side_px: int = 32
    max_side_px: int = 4096  # three side by side still fit what H.264 players accept


# --- evaluation (ours unless stated) ------------------------------------------------------------------------


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


# --- the command line (ours) --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CliConfig:
    """What the commands print and where the demo goes."""

    plain_interval_s: float = 10.0  # between two progress lines where there is no terminal to draw a bar in
    demo_folder: str = "personalive-demo"
    docs_width: int = 100  # columns of the help texts in docs/cli.md


# --- where weights live -------------------------------------------------------------------------------------

TINY = "tiny"  # the name of the bundled model wherever a weights folder is asked for
FACE_DETECTOR = "face_detection_yunet/face_detection_yunet_2023mar.onnx"  # YuNet, inside the weights folder
WEIGHTS_ENV = "PERSONALIVE_WEIGHTS"  # environment variable that names the weights folder


def default_weights_folder() -> Path:
    """Where `personalive weights download` puts the weights unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "personalive" / "weights"


def default_metrics_folder() -> Path:
    """Where `personalive evaluate` looks for the networks of LPIPS, ID-SIM and the like unless told otherwise."""
    return default_weights_folder().with_name("metrics")
