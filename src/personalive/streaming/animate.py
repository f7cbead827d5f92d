"""A film from two files: decode, frame, step, encode, as one stream in constant memory.

S is the side of the model's pictures.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from personalive.config import FilmSizeConfig, FramingConfig, KeyframeConfig
from personalive.errors import InputError, OutputError
from personalive.media import Frame, VideoReader, VideoWriter, check_output, load_still, open_video, save_png
from personalive.streaming.contact_sheet import ContactSheet
from personalive.streaming.engine import Engine
from personalive.streaming.load import AUTO, load_engine, memory_errors
from personalive.streaming.state import StreamState
from personalive.vision.faces import find_detector
from personalive.vision.framing import DrivingFramer, FramedFrame, FramingMode, NoFace, frame_portrait
from personalive.vision.resize import Square, crop_and_resize, resize_portrait


@dataclass(frozen=True, kw_only=True)
class AnimateOptions:
    """Everything that decides a film, beside its two inputs and the model.

    Raises:
        InputError: a size, seed or threshold that no film can be made with.
    """

    seed: int = 0
    keyframe_threshold: float = KeyframeConfig.threshold  # infinity turns keyframes off
    framing: FramingMode = "auto"
    no_face: NoFace = "hold"
    center_fallback: bool = False  # framing auto without a face: take the centre and say so
    start_s: float | None = None  # of the driving clip
    end_s: float | None = None
    audio: bool = True
    size_px: int | None = None  # side of each picture in the film, even; None means the model's own
    side_by_side: bool = False  # portrait, driver and result beside each other
    contact_sheet: str | None = None  # a PNG that shows the whole film at a glance

    def __post_init__(self) -> None:
        limits = FilmSizeConfig()
        low, high = limits.min_side_px, limits.max_side_px
        if self.size_px is not None and (self.size_px % 2 or not low <= self.size_px <= high):
            raise InputError(f"size {self.size_px}: give an even number of pixels from {low} to {high}")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: give a whole number from 0 up")
        if not self.keyframe_threshold >= 0:  # nor not-a-number
            raise InputError(
                f"keyframe threshold {self.keyframe_threshold}: give a number from 0 up, or infinity for no keyframes"
            )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a film is."""

    frames: int  # finished
    total: int | None  # as the clip's header says; None where it says nothing
    fps: float  # finished frames per second since the first


@dataclass(frozen=True, kw_only=True)
class AnimateReport:
    """What was made, from what, how, and how fast."""

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
    inputs: dict[str, str]
    options: dict[str, Any]
    framing: dict[str, Any]
    contact_sheet: str | None = None
    warnings: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write as JSON beside the film."""
        options = {name: _json_value(value) for name, value in self.options.items()}
        text = json.dumps(asdict(replace(self, options=options)), indent=2, allow_nan=False)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{path}: the run's record could not be written ({reason}); free some space") from error


def animate(
    portrait: str | os.PathLike[str],
    driving: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] = AUTO,
    engine: Engine | None = None,
    device: str = AUTO,
    dtype: str = AUTO,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> AnimateReport:
    """Make the film of ``portrait`` performing ``driving``.

    One frame leaves per driving frame, at the same time stamp. The film appears at ``output`` when it is whole;
    an interruption leaves ``OUTPUT.partial.mp4``, playable. The resolved run is saved as ``OUTPUT.json``.

    Args:
        portrait: any common still.
        driving: any common video, GIF or still.
        output: an .mp4 that may exist already (it is replaced) but may not be an input.
        weights, device, dtype: as for ``load_engine``; ignored where an ``engine`` is given.
        engine: a loaded model, to make several films with one.
        progress: called after every finished chunk.
        **options: fields of ``AnimateOptions``.

    Raises:
        PersonaLiveError: with one line that says what is wrong and what to do.
    """
    chosen = _options(options)
    target = check_output(output, [portrait, driving])
    report_path = check_output(target.with_suffix(".json"), [portrait, driving], suffix=".json")
    if chosen.contact_sheet is not None:
        check_output(chosen.contact_sheet, [portrait, driving], suffix=".png")
    picture = load_still(portrait)
    with open_video(driving, chosen.start_s, chosen.end_s) as reader:
        engine = engine or load_engine(weights, device=device, dtype=dtype)
        with memory_errors(engine.device):
            report = _Film(engine, picture, reader, chosen).make(target, [portrait, driving], progress)
    report = replace(report, inputs={"portrait": str(portrait), "driving": str(driving)})
    report.save(report_path)
    return report


def _options(given: dict[str, Any]) -> AnimateOptions:
    try:
        return AnimateOptions(**given)
    except TypeError as error:
        known = ", ".join(AnimateOptions.__dataclass_fields__)
        raise InputError(f"unknown option ({error}): use {known}") from None


class _Film:
    """One run of ``animate``: what is in flight between the reader and the writer."""

    def __init__(self, engine: Engine, picture: np.ndarray, reader: VideoReader, options: AnimateOptions) -> None:
        self.engine, self.reader, self.options = engine, reader, options
        config = engine.config
        scale = config.framing_scale
        framing = FramingConfig(portrait_scale=scale, driving_scale=scale)
        detector = find_detector(engine.folder) if options.framing == "auto" else None
        framed = frame_portrait(
            picture, detector, options.framing, allow_center_fallback=options.center_fallback, config=framing
        )
        self.notes = [f"portrait: {framed.note}"] if framed.note else []
        self.portrait = resize_portrait(framed.image, config.image_size_px)
        self.size_px = options.size_px or config.image_size_px
        self.shown_portrait = self._sized(self.portrait)
        self.state: StreamState = engine.start(
            framed.image, seed=options.seed, keyframe_threshold=options.keyframe_threshold
        )
        self.framer = DrivingFramer(
            detector,
            options.framing,
            options.no_face,
            config.image_size_px,
            allow_center_fallback=options.center_fallback,
            config=framing,
        )
        self.sheet = None if options.contact_sheet is None else ContactSheet(self.portrait)
        self.drivers: deque[np.ndarray] = deque()  # framed driving pictures whose results are still in flight
        self.times: deque[Frame] = deque()  # source frames (without pixels) whose results are still in flight

    def make(
        self, target: Path, inputs: list[str | os.PathLike[str]], progress: Callable[[Progress], None] | None
    ) -> AnimateReport:
        """Run the whole clip through the engine into the film."""
        info, size = self.reader.info, self.size_px
        begun, done, end = time.monotonic(), 0, Fraction(0)
        with VideoWriter(
            target,
            size * (3 if self.options.side_by_side else 1),
            size,
            time_base=info.time_base,
            fps=info.average_fps,
            audio_from=self.reader.audio if self.options.audio else None,
            inputs=inputs,
        ) as writer:
            for result in self._results():
                source, driver = self.times.popleft(), self.drivers.popleft()
                writer.write(self._composed(driver, result), source.time, source.duration)
                if self.sheet is not None:
                    self.sheet.add(driver, result)
                done, end = done + 1, source.time + source.duration
                if progress is not None and done % self.engine.chunk_frames == 0:
                    progress(Progress(frames=done, total=info.estimated_frames, fps=_rate(done, begun)))
        if progress is not None:
            progress(Progress(frames=done, total=done, fps=_rate(done, begun)))
        sheet = self._save_sheet(inputs)
        return self._report(target, done, float(end), begun, sheet, [*self.reader.warnings, *writer.warnings])

    def _results(self) -> Iterator[np.ndarray]:
        """One finished (S, S, 3) frame per driving frame, in order."""
        entered = left = 0
        to_drop = self.engine.warmup_frames
        for window, cut, fresh in self._windows():
            self.state, frames = self.engine.step(self.state, window, cut=cut)
            entered += fresh
            for frame in frames.numpy():
                if to_drop:
                    to_drop -= 1
                else:
                    left += 1
                    yield frame
        for frames in self.engine.flush(self.state):
            for frame in frames.numpy():
                if to_drop:
                    to_drop -= 1
                elif left < entered:
                    left += 1
                    yield frame

    def _windows(self) -> Iterator[tuple[np.ndarray, int | None, int]]:
        """(4, S, S, 3), where a new shot begins in it, and how many of them are real; the last one is padded."""
        waiting: list[FramedFrame] = []
        for frame in self._framed():
            waiting.append(frame)
            if len(waiting) == self.engine.chunk_frames:
                yield self._window(waiting, len(waiting))
                waiting = []
        if waiting:
            real = len(waiting)
            padding = [replace(waiting[-1], cut=False)] * (self.engine.chunk_frames - real)
            yield self._window(waiting + padding, real)

    def _window(self, frames: list[FramedFrame], real: int) -> tuple[np.ndarray, int | None, int]:
        pictures = [self.portrait if frame.neutral else frame.image for frame in frames]
        self.drivers.extend(pictures[:real])
        cut = max((i for i, frame in enumerate(frames) if frame.cut), default=None)  # the last one stays the base
        return np.stack(pictures), cut, real

    def _framed(self) -> Iterator[FramedFrame]:
        """The driving clip, framed; times are kept for the results."""
        for frame in self.reader:
            self.times.append(replace(frame, image=np.empty((0, 0, 3), np.uint8)))
            yield from self.framer.push(frame.image, float(frame.time))
        yield from self.framer.flush()

    def _composed(self, driver: np.ndarray, result: np.ndarray) -> np.ndarray:
        if not self.options.side_by_side:
            return self._sized(result)
        return np.concatenate([self.shown_portrait, self._sized(driver), self._sized(result)], axis=1)

    def _sized(self, picture: np.ndarray) -> np.ndarray:
        """(S, S, 3) -> at the film's size."""
        return crop_and_resize(picture, Square(0, 0, picture.shape[0]), self.size_px)

    def _save_sheet(self, inputs: list[str | os.PathLike[str]]) -> str | None:
        if self.sheet is None or self.options.contact_sheet is None:
            return None
        return str(save_png(self.options.contact_sheet, self.sheet.picture(), tuple(inputs)))

    def _report(
        self,
        target: Path,
        frames: int,
        duration_s: float,
        begun: float,
        sheet: str | None,
        warnings: list[str],
    ) -> AnimateReport:
        engine = self.engine
        note = self.framer.report.note
        notes = [*self.notes, *([f"driving clip: {note}"] if note else [])]
        return AnimateReport(
            output=str(target),
            frames=frames,
            duration_s=round(duration_s, 3),
            fps=round(_rate(frames, begun), 2),
            seconds=round(time.monotonic() - begun, 2),
            image_size_px=engine.image_size,
            keyframes=self.state.keyframes,
            weights=engine.name,
            device=str(engine.device),
            dtype=str(engine.dtype).removeprefix("torch."),
            inputs={},
            options=asdict(self.options),
            framing=self.framer.report.to_json(),
            contact_sheet=sheet,
            warnings=notes + warnings,
        )


def _json_value(value: Any) -> Any:
    """JSON has no infinity, which turns keyframes off: as text it stays readable, for ``float`` too."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _rate(frames: int, begun: float) -> float:
    return frames / max(time.monotonic() - begun, 1e-9)
