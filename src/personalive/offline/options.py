"""Options of a video, and the record of one that is made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from personalive.config import KeyframeConfig
from personalive.engine.controls import CONTROL_NAMES, Controls, PoseMode, check_steps
from personalive.errors import InputError
from personalive.media.paths import write_whole
from personalive.offline.config import VideoSizeConfig
from personalive.vision.framing import FramingMode, NoFace
from personalive.vision.paste_back import OutputFrame

AUTO: Literal["auto"] = "auto"
_PLAIN = Controls()


@dataclass(frozen=True, kw_only=True)
class AnimateOptions:
    """Everything that decides a video, beside its two inputs and the model.

    Raises:
        InputError: a size, seed, threshold, number of steps or control that no video can be made with.
    """

    seed: int = 0
    keyframe_threshold: float = KeyframeConfig.threshold  # infinity turns keyframes off
    steps: int | None = None  # of denoising, 1 up to the model's own number, which None is
    framing: FramingMode = "auto"
    no_face: NoFace = "hold"
    center_fallback: bool = False  # framing auto without a face: take the centre and say so
    start_s: float | Literal["auto"] | None = None  # of the driving clip; "auto": at its most neutral frame
    end_s: float | None = None
    audio: bool = True
    output_frame: OutputFrame = "square"  # of the model's, or the whole photograph of the "portrait", at its own size
    size_px: int | None = None  # side of each panel in the video, even; None means the model's own
    side_by_side: bool = False  # portrait, driver and result beside each other; of a motion file no driver
    contact_sheet: str | None = None  # a PNG that shows the whole video at a glance
    credentials: bool = True  # sign video and contact sheet: see ``media.credentials``
    visible_mark: bool = False  # a small label on every frame
    mirror: bool = False  # exchange the driver's left and right before anything reads it
    expression: float = _PLAIN.expression  # this and the next five: see ``Controls``
    mouth: float = _PLAIN.mouth
    eyes: float = _PLAIN.eyes
    head_motion: float = _PLAIN.head_motion
    pose: PoseMode | Literal["auto"] = AUTO  # relative for a driver filmed from the side
    smoothing: float = _PLAIN.smoothing

    @property
    def controls(self) -> Controls:
        """Controls of the whole video; "auto" is not decided yet, and absolute here."""
        given: dict[str, Any] = {name: getattr(self, name) for name in CONTROL_NAMES}
        if self.pose == AUTO:
            given["pose"] = _PLAIN.pose
        return Controls(**given)

    def __post_init__(self) -> None:
        limits = VideoSizeConfig()
        low, high = limits.min_side_px, limits.max_side_px
        if self.size_px is not None and (self.size_px % 2 or not low <= self.size_px <= high):
            raise InputError(f"size {self.size_px}: give an even number of pixels from {low} to {high}")
        if self.output_frame not in get_args(OutputFrame):
            raise InputError(f"output frame {self.output_frame}: use {' or '.join(get_args(OutputFrame))}")
        if self.output_frame == "portrait" and self.side_by_side:
            raise InputError("output frame portrait has no panels side by side: leave one of the two out")
        if self.output_frame == "portrait" and self.size_px is not None:
            raise InputError(
                f"output frame portrait has the photograph's own size, not {self.size_px}: leave the size out, or "
                "shrink the photograph"
            )
        if isinstance(self.start_s, str) and self.start_s != AUTO:
            raise InputError(f"start {self.start_s!r}: give seconds, or {AUTO} for the most neutral frame")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: give a whole number from 0 up")
        if not self.keyframe_threshold >= 0:  # nor not-a-number
            raise InputError(
                f"keyframe threshold {self.keyframe_threshold}: give a number from 0 up, or infinity for no keyframes"
            )
        if self.steps is not None:
            check_steps(self.steps)
        _ = self.controls  # refuses what is out of range


@dataclass(frozen=True, kw_only=True)
class AnimateReport:
    """Summary of a video: inputs, options, model, speed, warnings."""

    output: str
    frames: int
    duration_s: float
    fps: float  # finished frames per second of work
    seconds: float  # of work, model loading not counted
    image_size_px: int
    keyframes: int
    weights: str
    device: str
    dtype: str
    backend: str
    vram: str  # GB, the memory preset
    decoder: str  # kind of network that decoded the frames
    inputs: dict[str, str]
    options: dict[str, Any]
    framing: dict[str, Any]
    contact_sheet: str | None = None
    warnings: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write as JSON beside the video."""
        options = options_to_json(self.options)
        text = json.dumps(asdict(replace(self, options=options)), indent=2, allow_nan=False)
        write_whole(path, text + "\n")


def options_to_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a record holds them.

    Infinity, which turns keyframes off, is text: JSON has no number for it, and ``float`` reads it back.
    """
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in options.items()
    }
