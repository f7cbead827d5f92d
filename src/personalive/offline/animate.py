"""Animate: a video from a portrait and a driving clip, as one stream in constant memory.

S is the side of the model's images.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np

from personalive.checkpoints.networks import LoadProgress
from personalive.config import KeyframeConfig
from personalive.engine.base import BaseEngine
from personalive.engine.controls import CONTROL_NAMES, Controls, PoseMode, check_steps
from personalive.engine.state import Window
from personalive.errors import InputError, OutputError
from personalive.media import (
    VideoReader,
    VideoWriter,
    check_output,
    load_isolated_still,
    open_isolated_video,
    save_png,
)
from personalive.media.credentials import NO_CREDENTIALS, check_signer
from personalive.media.paths import write_whole
from personalive.offline.composition import Composition, Marked, OutputFrame, Panels, WholePhotograph
from personalive.offline.config import FilmSizeConfig
from personalive.offline.contact_sheet import ContactSheet
from personalive.offline.driving import ClipDriving, Driving, DrivingFrame, MotionDriving
from personalive.offline.motion_file import MotionClip, fit_motion_clip, is_motion_file, load_motion_file
from personalive.offline.provenance import origin_of
from personalive.progress import Meter, Progress
from personalive.runtime.load import AUTO, load_engine
from personalive.runtime.memory import engine_oom_errors
from personalive.runtime.registry import PrepareProgress
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector, find_detector
from personalive.vision.framing import DrivingFramer, FramingMode, NoFace, frame_portrait
from personalive.vision.paste_back import PasteBack
from personalive.vision.resize import resize_portrait
from personalive.vision.visible_mark import draw_visible_mark

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
    start_s: float | None = None  # of the driving clip
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
    pose: PoseMode = _PLAIN.pose
    smoothing: float = _PLAIN.smoothing

    @property
    def controls(self) -> Controls:
        """Controls of the whole video."""
        return Controls(**{name: getattr(self, name) for name in CONTROL_NAMES})

    def __post_init__(self) -> None:
        limits = FilmSizeConfig()
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


def animate(
    portrait: str | os.PathLike[str],
    driving: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] = AUTO,
    engine: BaseEngine | None = None,
    device: str = AUTO,
    dtype: str = AUTO,
    vram: str | int = AUTO,
    backend: str = AUTO,
    decoder: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    loading: LoadProgress | None = None,
    preparing: PrepareProgress | None = None,
    **options: Any,
) -> AnimateReport:
    """Make the video of ``portrait`` performing ``driving``.

    One frame leaves per driving frame, at the same time stamp. The video appears at ``output`` when it is whole;
    an interruption leaves ``OUTPUT.partial.mp4``, playable. The resolved run is saved as ``OUTPUT.json``.

    Args:
        portrait: any common still.
        driving: any common video, GIF or still, or a motion file (see ``offline.motion_file``).
        output: an .mp4 that may exist already (it is replaced) but may not be an input.
        weights, device, dtype, vram, backend, decoder: as for ``load_engine``; ignored where an ``engine`` is
            given.
        engine: a loaded model, to make several videos with one.
        progress: called after every finished chunk.
        loading, preparing: called while the model is loaded and prepared, see ``load_engine``.
        **options: fields of ``AnimateOptions``.

    Raises:
        PersonaLiveError: with one line that says what is wrong and what to do.
    """
    chosen = _options(options)
    target = check_output(output, [portrait, driving])
    report_path = _report_path(target, [portrait, driving])
    if chosen.contact_sheet is not None:
        check_output(chosen.contact_sheet, [portrait, driving], suffix=".png")
    if chosen.credentials:
        check_signer()
    image = load_isolated_still(portrait)
    with _opened(driving, chosen) as source:
        engine = engine or load_engine(
            weights,
            device=device,
            dtype=dtype,
            vram=vram,
            backend=backend,
            decoder=decoder,
            frames=len(source) if isinstance(source, MotionClip) else source.info.estimated_frames,
            progress=loading,
            preparing=preparing,
        )
        with engine_oom_errors(engine):
            fit = fit_motion_clip(source, engine, str(driving)) if isinstance(source, MotionClip) else source
            report = _Video(engine, image, fit, chosen).make(target, [portrait, driving], progress)
    report = replace(report, inputs={"portrait": str(portrait), "driving": str(driving)})
    report.save(report_path)
    return report


def _report_path(target: Path, inputs: list[str | os.PathLike[str]]) -> Path:
    """Path of the record of the video at ``target``.

    Raises:
        OutputError: a file is there that is no such record, or it cannot be written.
    """
    path = check_output(target.with_suffix(".json"), inputs, suffix=".json")
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or not {"output", "frames", "weights", "options"} <= found.keys():
            raise OutputError(
                f"{path}: is in the place of the video's record and is no record itself; "
                "move it, or choose another name for the video"
            )
    return path


def _options(given: dict[str, Any]) -> AnimateOptions:
    try:
        return AnimateOptions(**given)
    except TypeError as error:
        known = ", ".join(AnimateOptions.__dataclass_fields__)
        raise InputError(f"unknown option ({error}): use {known}") from None


@contextmanager
def _opened(driving: str | os.PathLike[str], options: AnimateOptions) -> Iterator[VideoReader | MotionClip]:
    if not is_motion_file(driving):
        with open_isolated_video(driving, options.start_s, options.end_s) as reader:
            yield reader
        return
    if options.mirror:
        raise InputError(f"{driving}: is motion without images, nothing can be mirrored: record it with --mirror")
    yield load_motion_file(driving).part(options.start_s, options.end_s, name=str(driving))


class _Video:
    """One run of ``animate``: what is in flight between the windows and the writer."""

    def __init__(
        self, engine: BaseEngine, image: np.ndarray, source: VideoReader | MotionClip, options: AnimateOptions
    ) -> None:
        self.engine, self.options = engine, options
        engine.check_steps(options.steps)
        engine.check(options.controls)
        config = engine.config
        scale = config.framing_scale
        framing = FramingConfig(portrait_scale=scale, driving_scale=scale)
        detector = find_detector(engine.folder) if options.framing == "auto" else None
        self.framed = frame_portrait(
            image, detector, options.framing, allow_center_fallback=options.center_fallback, config=framing
        )
        self.portrait = resize_portrait(self.framed.image, config.image_size_px)
        self.portrait_notes = [self.framed.note]
        composition = self._composition(image, has_driver=isinstance(source, VideoReader))
        self.composition = Marked(composition) if options.visible_mark else composition
        composite = options.side_by_side or options.output_frame == "portrait"
        self.origin = origin_of(engine, composite=composite) if options.credentials else None
        self.driving = self._open_driving(source, detector, framing)
        self.keyframes, self.notes = 0, list[str]()
        self.sheet = None if options.contact_sheet is None else ContactSheet(self.portrait)

    def _composition(self, image: np.ndarray, *, has_driver: bool) -> Composition:
        options = self.options
        if options.output_frame == "portrait":
            paste_back = PasteBack(image, self.framed, self.portrait)
            self.portrait_notes.append(paste_back.note)
            return WholePhotograph(paste_back)
        size_px = options.size_px or self.engine.image_size
        return Panels(self.portrait, size_px, side_by_side=options.side_by_side, has_driver=has_driver)

    def _open_driving(
        self, source: VideoReader | MotionClip, detector: FaceDetector | None, framing: FramingConfig
    ) -> Driving:
        engine, options = self.engine, self.options
        if isinstance(source, MotionClip):
            return MotionDriving(source, engine.chunk_frames)
        framer = DrivingFramer(
            detector,
            options.framing,
            options.no_face,
            engine.image_size,
            allow_center_fallback=options.center_fallback,
            config=framing,
        )
        return ClipDriving(source, framer, engine.chunk_frames, neutral=self.portrait, mirror=options.mirror)

    def make(
        self, target: Path, inputs: list[str | os.PathLike[str]], progress: Callable[[Progress], None] | None
    ) -> AnimateReport:
        """Run the whole performance through the engine into the video."""
        driving, composition = self.driving, self.composition
        meter, done, end = Meter(driving.expected), 0, Fraction(0)
        with VideoWriter(
            target,
            composition.width,
            composition.height,
            time_base=driving.time_base,
            fps=driving.fps,
            audio_from=driving.audio if self.options.audio else None,
            inputs=inputs,
            origin=self.origin,
        ) as writer:
            for driver, result in self._results():
                writer.write(composition.compose(driver.image, result), *driver.time)
                if self.sheet is not None:
                    self.sheet.add(driver.image, result)
                done, end = done + 1, sum(driver.time, Fraction(0))
                if progress is not None and done % self.engine.chunk_frames == 0:
                    progress(meter.at(done))
        if progress is not None:
            progress(replace(meter.at(done), total=done))
        sheet = self._save_sheet(inputs)
        warnings = [*driving.warnings(), *writer.warnings, *([] if self.origin else [NO_CREDENTIALS])]
        return self._report(target, done, float(end), meter.seconds, sheet, warnings)

    def _results(self) -> Iterator[tuple[DrivingFrame, np.ndarray]]:
        """Every driving frame with the finished (S, S, 3) frame that it made, in order; padding is left out."""
        in_flight: deque[list[DrivingFrame]] = deque()

        def windows() -> Iterator[Window]:
            for window in self.driving.windows():
                in_flight.append(window.frames)
                yield window.to_engine()

        options = self.options
        chunks = self.engine.stream(
            self.framed.image,
            windows(),
            seed=options.seed,
            keyframe_threshold=options.keyframe_threshold,
            steps=options.steps,
            controls=options.controls,
            on_step=self._note_step,
        )
        for chunk in chunks:
            yield from zip(in_flight.popleft(), chunk.numpy(), strict=False)

    def _note_step(self, state: Any, _seconds: float) -> None:
        self.keyframes, self.notes = state.keyframes, self.engine.notes(state)

    def _save_sheet(self, inputs: list[str | os.PathLike[str]]) -> str | None:
        if self.sheet is None or self.options.contact_sheet is None:
            return None
        sheet = draw_visible_mark(self.sheet.image()) if self.options.visible_mark else self.sheet.image()
        return str(save_png(self.options.contact_sheet, sheet, tuple(inputs), self.origin and self.origin.composed()))

    def _report(
        self,
        target: Path,
        frames: int,
        duration_s: float,
        seconds: float,
        sheet: str | None,
        warnings: list[str],
    ) -> AnimateReport:
        engine = self.engine
        return AnimateReport(
            output=str(target),
            frames=frames,
            duration_s=round(duration_s, 3),
            fps=round(frames / seconds, 2),
            seconds=round(seconds, 2),
            image_size_px=engine.image_size,
            keyframes=self.keyframes,
            weights=engine.name,
            device=str(engine.device),
            **engine.facts,
            inputs={},
            options=asdict(self.options),
            framing=self.driving.framing(),
            contact_sheet=sheet,
            warnings=[f"portrait: {note}" for note in self.portrait_notes if note] + self.notes + warnings,
        )


def options_to_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a record holds them.

    Infinity, which turns keyframes off, is text: JSON has no number for it, and ``float`` reads it back.
    """
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in options.items()
    }
