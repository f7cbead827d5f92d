"""Every default that more than one part of the package reads, once, with its unit and source.

Sources: "paper" is the PersonaLive paper (CVPR 2026); "weights" is a fact of the released checkpoints; "ours" is a
choice of this project. Model sizes are those of the released checkpoints; a folder with ``personalive/config.json``
overrides them (the bundled small model does). Defaults that only one part reads are kept beside its code.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from personalive.errors import CheckpointError

BACKEND_ENV = "PERSONALIVE_BACKEND"  # environment variable that sets what "auto" means
FP16_SUMS_ENV = "PERSONALIVE_FP16_SUMS"  # environment variable that, where 1, lets CUDA sum products in float16
CACHE_ENV = "PERSONALIVE_CACHE"  # environment variable that names the folder of prepared programs
SIGNER_ENV = "PERSONALIVE_SIGNER"  # environment variable that names the folder of certificate.pem and key.pem
TINY = "tiny"  # the name of the bundled diffusion model wherever a weights folder is asked for
PHOTO = "photo"  # and of the bundled model for photographs
OWN_DECODER = "own"  # the model's own, wherever a decoder's folder is asked for
TAESD = "taesd"  # the name of the small decoder that can be downloaded, wherever a decoder's folder is asked for
FACE_DETECTOR = "face_detection_yunet/face_detection_yunet_2023mar.onnx"  # YuNet, inside the weights folder
WEIGHTS_ENV = "PERSONALIVE_WEIGHTS"  # environment variable that names the weights folder

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
class DetailConfig:
    """The head that finds a frame's detail in the portrait (ours; the released model has none)."""

    width: int = 0  # channels; 0 means that there is no such head; else a multiple of 4
    blocks: int = 2
    blend_width: int = 32


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
    shoulder_drop: float = 0.117  # below the joint, in half image sides, where shoulders begin
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
    detail: DetailConfig = field(default_factory=DetailConfig)
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


# --- memory presets, named after the cards they are made for (ours): docs/performance.md ---------------------------

RELEASED_VALUES = 3_022_732_085  # of all networks (weights); two bytes each in half precision


@dataclass(frozen=True, kw_only=True)
class MemoryPreset:
    """Measures that save memory. None changes an image by more than rounding."""

    name: str  # GB of the card
    min_device_bytes: int  # `auto` takes it from here up: cards report up to a tenth less than they are sold as
    offload_encoders: bool = False  # image encoder and VAE encoder wait in main memory and come for each portrait
    decode_frames: int | None = None  # decoded at a time; None: a whole chunk


FULL = MemoryPreset(name="16", min_device_bytes=14_500_000_000)  # saves nothing
PRESETS: Mapping[str, MemoryPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            # The encoders are a tenth of the weights and wanted once per portrait. Decoding two frames at a time
            # takes less than the denoiser does before it, so slices of one would save nothing.
            MemoryPreset(name="8", min_device_bytes=0, offload_encoders=True, decode_frames=2),
            # All weights stay, so that a portrait is swapped without waiting for any.
            MemoryPreset(name="12", min_device_bytes=10_500_000_000, decode_frames=2),
            FULL,
        )
    }
)


# --- folders ---------------------------------------------------------------------------------------------------


def _home() -> Path:
    """The user's home; service users may have none, and then it does not exist."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def expand_user(path: str | os.PathLike[str]) -> Path:
    """``path`` with a leading ``~`` expanded, where there is a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def default_cache_folder() -> Path:
    """Folder of prepared programs, which can be removed at any time."""
    if named := os.environ.get(CACHE_ENV):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "personalive"


def default_weights_folder() -> Path:
    """Folder where `personalive weights download` puts the weights by default."""
    base = os.environ.get("XDG_DATA_HOME") or _home() / ".local" / "share"
    return Path(base) / "personalive" / "weights"


def default_decoder_folder() -> Path:
    """Folder where `personalive weights download --decoder taesd` puts it by default."""
    return default_weights_folder().with_name(TAESD)


def default_metrics_folder() -> Path:
    """Folder of the networks of LPIPS, ID-SIM and the like for `personalive evaluate`, by default."""
    return default_weights_folder().with_name("metrics")


def default_signer_folder() -> Path:
    """Folder of the certificate and key that content credentials are signed with."""
    if named := os.environ.get(SIGNER_ENV):
        return expand_user(named)
    return default_weights_folder().with_name("signer")
