"""Animate: a video from a portrait and a driving clip, as one stream in constant memory.

S is the side of the model's images.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from personalive.checkpoints.networks import LoadProgress
from personalive.engine.base import BaseEngine
from personalive.engine.state import Window
from personalive.errors import InputError, OutputError
from personalive.media.credentials import NO_CREDENTIALS, check_signer
from personalive.media.isolated import load_isolated_still, open_isolated_video
from personalive.media.paths import check_output
from personalive.media.reader import VideoReader
from personalive.media.still import save_png
from personalive.offline.beginning import find_start, read_beginning
from personalive.offline.composition import Composition, Marked, Panels, WholePhotograph
from personalive.offline.config import BeginningConfig, PartsConfig
from personalive.offline.contact_sheet import ContactSheet
from personalive.offline.driving import ClipDriving, Driving, DrivingFrame, MotionDriving, prefetched
from personalive.offline.motion_file import MotionClip, fit_motion_clip, is_motion_file, load_motion_file
from personalive.offline.options import AnimateOptions, AnimateReport
from personalive.offline.parts import PartedWriter, Reached, UnfinishedVideo, render_identity, unfinished_video
from personalive.offline.provenance import origin_of
from personalive.progress import Meter, Progress
from personalive.runtime.load import AUTO, load_engine
from personalive.runtime.memory import engine_oom_errors
from personalive.runtime.registry import PrepareProgress
from personalive.vision.config import FramingConfig
from personalive.vision.faces import find_detector
from personalive.vision.framing import DrivingFramer, Framed, frame_portrait
from personalive.vision.paste_back import PasteBack
from personalive.vision.resize import resize_portrait
from personalive.vision.visible_mark import draw_visible_mark

_WINDOWS_AHEAD = 2  # that are decoded, framed and read while the engine makes one


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
    parts: PartsConfig | None = None,
    **options: Any,
) -> AnimateReport:
    """Make the video of ``portrait`` performing ``driving``.

    One frame leaves per driving frame, at the same time stamp. The video appears at ``output`` when it is whole;
    an interruption leaves ``OUTPUT.partial.mp4``, playable. The resolved run is saved as ``OUTPUT.json``. After an
    interruption of any kind the same call goes on from the last finished part of the video, see ``offline.parts``.

    Args:
        portrait: any common still.
        driving: any common video, GIF or still, or a motion file (see ``offline.motion_file``).
        output: an .mp4 that may exist already (it is replaced) but may not be an input.
        weights, device, dtype, vram, backend, decoder: as for ``load_engine``; ignored where an ``engine`` is
            given.
        engine: a loaded model, to make several videos with one.
        progress: called after every finished chunk.
        loading, preparing: called while the model is loaded and prepared, see ``load_engine``.
        parts: length of a part.
        **options: fields of ``AnimateOptions``.

    Raises:
        PersonaLiveError: with one line that says what is wrong and what to do.
    """
    chosen = _options(options)
    target = check_output(output, [portrait, driving])
    report_path = _report_path(target, [portrait, driving])
    if chosen.contact_sheet is not None:
        check_output(chosen.contact_sheet, [portrait, driving], suffix=".png")
    image = load_isolated_still(portrait)
    inputs = {"portrait": portrait, "driving": driving}
    with ExitStack() as files:
        source = files.enter_context(_opened(driving, chosen))
        if chosen.credentials:
            check_signer()
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
            framed = _Settings(engine, chosen).frame_portrait(image)
            decided, notes = _decide(driving, source, engine, chosen)
            if decided.start_s != chosen.start_s:
                source = files.enter_context(_opened(driving, decided))
            fit = fit_motion_clip(source, engine, str(driving)) if isinstance(source, MotionClip) else source
            part_s = (parts or PartsConfig()).seconds(engine.device.type)
            identity = render_identity(engine, chosen, inputs, part_s)
            with unfinished_video(target, identity) as unfinished:
                video = _Video(engine, image, framed, fit, decided)
                report = video.make(unfinished, part_s, list(inputs.values()), progress)
    report = replace(report, options=asdict(chosen), warnings=[*notes, *report.warnings])
    report = replace(report, inputs={name: str(path) for name, path in inputs.items()})
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


def _decide(
    driving: str | os.PathLike[str], source: VideoReader | MotionClip, engine: BaseEngine, options: AnimateOptions
) -> tuple[AnimateOptions, list[str]]:
    """Options without "auto", and lines that tell what was decided; ``source`` is at its start again."""
    if "auto" not in (options.start_s, options.pose):
        return options, []
    config, notes, begin_s = BeginningConfig(), list[str](), 0.0
    if isinstance(source, MotionClip):
        source = fit_motion_clip(source, engine, str(driving))
    performance = _Settings(engine, options).open_driving(source, None)
    if options.start_s == "auto":
        start_s, found, note = find_start(performance, engine)
        options, notes, begin_s = replace(options, start_s=start_s), [note], start_s or 0.0
    else:
        found = read_beginning(performance, engine, config.pose_s, 4 * config.pose_s / config.samples)
    if isinstance(source, VideoReader):
        source.rewind()
    if options.pose == "auto":
        pose, note = found.pose(begin_s, config)
        options, notes = replace(options, pose=pose), [*notes, *filter(None, [note])]
    return options, notes


class _Settings:
    """Framing of portrait and driver."""

    def __init__(self, engine: BaseEngine, options: AnimateOptions) -> None:
        self.engine, self.options = engine, options
        scale = engine.config.framing_scale
        self.framing = FramingConfig(portrait_scale=scale, driving_scale=scale)
        self.detector = find_detector(engine.folder) if options.framing == "auto" else None

    def frame_portrait(self, image: np.ndarray) -> Framed:
        """Square of the portrait (H, W, 3) uint8 that is animated."""
        fallback = self.options.center_fallback
        return frame_portrait(
            image, self.detector, self.options.framing, allow_center_fallback=fallback, config=self.framing
        )

    def open_driving(self, source: VideoReader | MotionClip, neutral: np.ndarray | None) -> Driving:
        """The performance in ``source``; ``neutral`` (S, S, 3) drives where the portrait's own pose is asked for."""
        engine, options = self.engine, self.options
        if isinstance(source, MotionClip):
            return MotionDriving(source, engine.chunk_frames)
        framer = DrivingFramer(
            self.detector,
            options.framing,
            options.no_face,
            engine.image_size,
            allow_center_fallback=options.center_fallback,
            config=self.framing,
        )
        return ClipDriving(source, framer, engine.chunk_frames, neutral=neutral, mirror=options.mirror)


@contextmanager
def _opened(driving: str | os.PathLike[str], options: AnimateOptions) -> Iterator[VideoReader | MotionClip]:
    start_s = None if isinstance(options.start_s, str) else options.start_s
    if not is_motion_file(driving):
        with open_isolated_video(driving, start_s, options.end_s) as reader:
            yield reader
        return
    if options.mirror:
        raise InputError(f"{driving}: is motion without images, nothing can be mirrored: record it with --mirror")
    yield load_motion_file(driving).part(start_s, options.end_s, name=str(driving))


class _Video:
    """One run of ``animate``: what is in flight between the windows and the writer."""

    def __init__(
        self,
        engine: BaseEngine,
        image: np.ndarray,
        framed: Framed,
        source: VideoReader | MotionClip,
        options: AnimateOptions,
    ) -> None:
        self.engine, self.options, self.framed = engine, options, framed
        engine.check_steps(options.steps)
        engine.check(options.controls)
        self.portrait = resize_portrait(framed.image, engine.image_size)
        self.portrait_notes = [framed.note]
        composition = self._composition(image, has_driver=isinstance(source, VideoReader))
        self.composition = Marked(composition) if options.visible_mark else composition
        composite = options.side_by_side or options.output_frame == "portrait"
        self.origin = origin_of(engine, composite=composite) if options.credentials else None
        self.driving = _Settings(engine, options).open_driving(source, self.portrait)
        self.state: Any = None  # of the stream
        self.sheet = None if options.contact_sheet is None else ContactSheet(self.portrait)

    def _composition(self, image: np.ndarray, *, has_driver: bool) -> Composition:
        options = self.options
        if options.output_frame == "portrait":
            paste_back = PasteBack(image, self.framed, self.portrait)
            self.portrait_notes.append(paste_back.note)
            return WholePhotograph(paste_back)
        size_px = options.size_px or self.engine.image_size
        return Panels(self.portrait, size_px, side_by_side=options.side_by_side, has_driver=has_driver)

    def make(
        self,
        unfinished: UnfinishedVideo,
        part_s: float,
        inputs: list[str | os.PathLike[str]],
        progress: Callable[[Progress], None] | None,
    ) -> AnimateReport:
        """Run the performance through the engine into the video, from where an earlier run has left it.

        Args:
            unfinished: the earlier run's parts, and this one's.
            part_s: seconds of a part.
            inputs: files to keep.
            progress: see ``animate``.
        """
        engine, options, driving, composition = self.engine, self.options, self.driving, self.composition
        start = engine.start(
            self.framed.image, seed=options.seed, keyframe_threshold=options.keyframe_threshold, steps=options.steps
        )
        begun = start, None  # as ``_reached`` gives it
        reached = unfinished.resume(begun, engine.device) or Reached(0, 0.0, begun)
        self.state, sheet = reached.state
        if self.sheet is not None and sheet is not None:
            self.sheet.state = sheet
        done, meter = reached.frames, Meter(driving.expected, found=reached.frames)
        with (
            PartedWriter(
                unfinished,
                composition.width,
                composition.height,
                time_base=driving.time_base,
                fps=driving.fps,
                audio_from=driving.audio if options.audio else None,
                inputs=inputs,
                origin=self.origin,
            ) as writer,
            closing(self._results(done // engine.chunk_frames)) as results,
        ):
            for driver, result in results:
                writer.write(composition.compose(driver.image, result), *driver.time)
                if self.sheet is not None:
                    self.sheet.add(driver.image, result)
                done += 1
                if done % engine.chunk_frames:
                    continue
                if progress is not None:
                    progress(meter.at(done))
                if writer.part_s >= part_s and self._is_at(done):
                    writer.finish_part(self._reached(done, reached.seconds + meter.seconds), begun)
        seconds = reached.seconds + meter.seconds
        if progress is not None:
            progress(replace(meter.at(done), total=done))
        sheet = self._save_sheet(inputs)
        warnings = [*driving.warnings(), *writer.warnings, *([] if self.origin else [NO_CREDENTIALS])]
        return self._report(unfinished.target, done, float(writer.end), seconds, sheet, warnings)

    def _is_at(self, frames: int) -> bool:
        """True if the state is the one after ``frames`` finished frames: not while those in flight are flushed."""
        state = self.state
        return frames == state.call * self.engine.chunk_frames - state.warmup_frames

    def _reached(self, frames: int, seconds: float) -> Reached:
        return Reached(frames, seconds, (self.state, None if self.sheet is None else self.sheet.state))

    def _results(self, chunks_done: int) -> Generator[tuple[DrivingFrame, np.ndarray]]:
        """Driving frames with the finished (S, S, 3) frames that they made, in order; padding is left out.

        Args:
            chunks_done: that an earlier run has finished, and that are left out. Its driving is read again.
        """
        in_flight: deque[list[DrivingFrame]] = deque()
        taken = self.state.call

        def windows() -> Iterator[Window]:
            for number, window in enumerate(self.driving.windows()):
                if number >= chunks_done:
                    in_flight.append(window.frames)
                if number >= taken:
                    yield self.engine.prepared(window.to_engine())

        with closing(prefetched(windows(), _WINDOWS_AHEAD)) as ready:
            chunks = self.engine.stream_from(
                self.state, ready, controls=self.options.controls, on_step=self._note_step
            )
            for chunk in chunks:
                yield from zip(in_flight.popleft(), chunk.numpy(), strict=False)

    def _note_step(self, state: Any, _seconds: float) -> None:
        self.state = state

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
            keyframes=self.state.keyframes,
            weights=engine.name,
            device=str(engine.device),
            **engine.facts,
            inputs={},
            options=asdict(self.options),
            framing=self.driving.framing(),
            contact_sheet=sheet,
            warnings=[f"portrait: {note}" for note in self.portrait_notes if note]
            + engine.notes(self.state)
            + warnings,
        )
