"""One evaluation: every contender plays every case, every frame is measured as it comes, and nothing is kept."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personalive.engine.engine import Engine
from personalive.errors import InputError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.contenders import COPY, OURS, TRUTH, Contender, FilmFolder, OurEngine, Yardstick
from personalive.evaluation.datasets import KINDS, Case, Dataset, DatasetOptions, Kind, SyntheticHeads, open_dataset
from personalive.evaluation.figures import FIGURES, READ_BY_MODEL, SPEED
from personalive.evaluation.inputs import write_inputs
from personalive.evaluation.measures import Clips, mean_of, measures_for
from personalive.evaluation.metrics import frechet_distance
from personalive.evaluation.pretrained.tools import Tools, load_tools
from personalive.evaluation.strips import Strip
from personalive.vision.faces import find_detector
from personalive.vision.framing import FramingMode

_CONFIG = EvaluationConfig()
_PACKAGES = ("personalive", "torch", "numpy", "opencv-python-headless", "av", "torchmetrics", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Everything that decides an evaluation, beside the model."""

    dataset: str = f"synthetic:{_CONFIG.people}"
    kinds: tuple[Kind, ...] = KINDS
    methods: tuple[tuple[str, str], ...] = ()  # name and folder of films
    people: int | None = None  # at most so many cases of a kind
    frames: int | None = None  # at most so many frames of each case
    pairs: str | None = None  # a file that says who drives whom
    framing: FramingMode = "auto"
    center_fallback: bool = False
    size_px: int | None = None  # side of the pictures compared without a model; else the model's
    seed: int = 0
    metrics_folder: str = ""  # where pretrained networks of measures lie

    def __post_init__(self) -> None:
        if not self.kinds:
            raise InputError("nothing to evaluate: leave --no-self or --no-cross out")
        for name, value in (("people", self.people), ("frames", self.frames)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: give a whole number from 1 up")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: give a whole number from 0 up")
        names = [name for name, _ in self.methods]
        taken = {OURS, COPY, TRUTH, ""} & set(names) or {name for name in names if names.count(name) > 1}
        if taken:
            raise InputError(f"method name {taken.pop()!r} is taken or empty: give each --method a name of its own")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an evaluation is."""

    frames: int  # measured
    total: int | None  # where every film's length is known
    fps: float  # measured frames per second


@dataclass
class CaseResult:
    """What one contender scored in one case."""

    case: str
    frames: int
    figures: dict[str, float]


@dataclass
class Row:
    """What one contender scored in all cases of a kind: means over its cases, FVD and speed over all of them."""

    kind: Kind
    method: str
    cases: list[CaseResult] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Evaluation:
    """All that the report says."""

    options: dict[str, Any]
    model: dict[str, str]
    versions: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # figure -> why there is none
    files: list[dict[str, str]] = field(default_factory=list)  # pretrained networks that were used
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    seconds: float = 0.0


def evaluate(
    options: EvaluateOptions,
    engine: Engine | None,
    *,
    progress: Callable[[Progress], None] | None = None,
    inputs: Path | None = None,
) -> Evaluation:
    """Score ``engine`` and the films of other methods on a dataset.

    Args:
        options: what to score on.
        engine: a loaded model; None scores other methods' films alone.
        progress: called after every measured frame.
        inputs: a new folder for every case's portrait and driving film, for other methods.

    Raises:
        InputError: nothing can be evaluated: no dataset, nothing readable in it, no contender.
        CheckpointError: a pretrained network's file is damaged or another one.
    """
    if engine is None and not options.methods:
        raise InputError("nothing to score: give a model with --weights, or films with --method NAME=FOLDER")
    if engine is not None and options.size_px not in (None, engine.image_size):
        raise InputError(
            f"size {options.size_px}: this model makes {engine.image_size} px, which decides: leave --size out"
        )
    run = _Run(options, engine, progress)
    if inputs is not None:
        run.write_inputs(inputs)
    return run.result()


class _Run:
    """One call of ``evaluate``."""

    def __init__(
        self, options: EvaluateOptions, engine: Engine | None, progress: Callable[[Progress], None] | None
    ) -> None:
        self.options, self.engine, self.progress = options, engine, progress
        size = engine.image_size if engine is not None else options.size_px or _CONFIG.size_px
        self.dataset = self._open_dataset(size)
        self.cases = {kind: self.dataset.cases(kind) for kind in options.kinds}
        self.methods = [FilmFolder(name, Path(folder), size) for name, folder in options.methods]
        self._check_methods()
        weights = None if engine is None else engine.folder
        self.tools = load_tools(
            Path(options.metrics_folder), weights, torch.device("cpu") if engine is None else engine.device
        )
        self.evaluation = Evaluation(_resolved(options, size), _described(engine), _versions())
        self.evaluation.files = [
            {"file": one.file.name, "sha256": one.sha256, "check": one.check, "licence": one.file.licence}
            for one in self.tools.found
        ]
        self.evaluation.skipped += self.dataset.skipped
        self.begun, self.measured = time.monotonic(), 0
        self.total = self._count_frames()
        self.known: dict[str, dict[str, float]] = {}  # figures of true pictures, which both kinds share

    def _open_dataset(self, size_px: int) -> Dataset:
        options, engine = self.options, self.engine
        chosen = DatasetOptions(
            size_px=size_px,
            people=options.people,
            frames=options.frames,
            framing=options.framing,
            center_fallback=options.center_fallback,
            pairs=None if options.pairs is None else Path(options.pairs),
            **({} if engine is None else {"framing_scale": engine.config.framing_scale}),
        )
        detector = find_detector(None if engine is None else engine.folder) if options.framing == "auto" else None
        return open_dataset(options.dataset, chosen, detector)

    def _check_methods(self) -> None:
        every = [case for cases in self.cases.values() for case in cases]
        for (name, folder), method in zip(self.options.methods, self.methods, strict=True):
            if not any(method.has(case) for case in every):
                raise InputError(
                    f"{folder}: no film of {name} has the name of a case: name them like {every[0].name}.mp4"
                )

    def _contenders(self) -> list[Contender]:
        ours = [] if self.engine is None else [OurEngine(self.engine, self.options.seed, _CONFIG.timing_warmup_calls)]
        return [*ours, *self.methods, Yardstick(COPY), Yardstick(TRUTH)]

    def _count_frames(self) -> int | None:
        counts = [
            case.frames
            for cases in self.cases.values()
            for case in cases
            for contender in self._contenders()
            if contender.has(case)
        ]
        return None if any(count is None for count in counts) else sum(count or 0 for count in counts)

    # --- the work -----------------------------------------------------------------------------------------

    def write_inputs(self, folder: Path) -> None:
        """Portraits and driving films of all cases, for other methods."""
        every = [case for cases in self.cases.values() for case in cases]
        self.evaluation.skipped += write_inputs(every, folder)

    def result(self) -> Evaluation:
        """Play all cases and gather the figures."""
        for kind in self.options.kinds:
            self._play_kind(kind)
        found = self.evaluation
        if not any(row.cases for row in found.rows):
            reason = f"; the first reason: {found.skipped[0]}" if found.skipped else ""
            raise InputError(f"{self.options.dataset}: not one case could be evaluated{reason}")
        found.missing = _missing(found.rows, self.tools, self.engine, isinstance(self.dataset, SyntheticHeads))
        found.notes += self.dataset.notes
        found.notes += [note for method in self.methods for note in dict.fromkeys(method.notes)]
        found.skipped += [line for method in self.methods for line in method.skipped]
        found.seconds = time.monotonic() - self.begun
        return found

    def _play_kind(self, kind: Kind) -> None:
        contenders = self._contenders()
        rows = [Row(kind, contender.name) for contender in contenders]
        clips = [None if self.tools.i3d is None else Clips(self.tools.i3d) for _ in contenders]
        for number, case in enumerate(self.cases[kind]):
            strip = Strip(case.name, kind) if number < _CONFIG.shown_cases else None
            for contender, row, collected in zip(contenders, rows, clips, strict=True):
                if not contender.has(case):
                    if isinstance(contender, FilmFolder):
                        self.evaluation.skipped.append(f"{contender.name}: has no film named {case.name}")
                    continue
                try:
                    row.cases.append(self._play(contender, case, strip, collected))
                except InputError as error:
                    self.evaluation.skipped.append(f"{case.name} ({kind}, {contender.name}): {error}")
                    if strip is not None:
                        strip.rows.pop(contender.name, None)
                    if not isinstance(contender, FilmFolder):
                        break  # the case itself cannot be read
            if strip is not None and len(strip.rows) > 1:
                self.evaluation.strips.append(strip)
        for contender, row, collected in zip(contenders, rows, clips, strict=True):
            row.figures = _summed(row.cases, collected) | contender.figures()
        self.evaluation.rows += [row for row in rows if row.cases]

    def _play(self, contender: Contender, case: Case, strip: Strip | None, clips: Clips | None) -> CaseResult:
        known = f"{contender.name}/{case.truth_id}" if contender.name == TRUTH and clips is None else ""
        portrait, measures = case.portrait(), []
        if known not in self.known:
            measures = measures_for(case, portrait, self.engine, self.tools, read_motion=contender.name != COPY)
        if strip is not None:
            strip.begin(contender.name, portrait)
        frames = 0
        for moment, output in contender.play(case):
            for measure in measures:
                measure.add(moment, output)
            if clips is not None:
                clips.add(moment, output)
            if strip is not None:
                strip.add(contender.name, moment, output)
            frames += 1
            self._tell()
        if clips is not None:
            clips.end_case()
        if not frames:
            raise InputError("not one frame to compare")
        figures = {name: value for measure in measures for name, value in measure.figures().items()}
        if known:
            figures = self.known.setdefault(known, figures)
        return CaseResult(case.name, frames, figures)

    def _tell(self) -> None:
        self.measured += 1
        if self.progress is not None:
            spent = max(time.monotonic() - self.begun, 1e-9)
            self.progress(Progress(frames=self.measured, total=self.total, fps=self.measured / spent))


def _summed(cases: list[CaseResult], clips: Clips | None) -> dict[str, float]:
    """Means over the cases that have a figure; FVD over all clips."""
    names = [name for name in FIGURES if any(name in case.figures for case in cases)]
    found = {name: mean_of([case.figures[name] for case in cases if name in case.figures]) for name in names}
    if clips is not None and len(clips.made) > 1:
        found["fvd"] = frechet_distance(np.stack(clips.made), np.stack(clips.wanted))
    return found


def _missing(rows: list[Row], tools: Tools, engine: Engine | None, synthetic: bool) -> dict[str, str]:
    """Why figures that no row has are not there."""
    reasons = dict(tools.missing)
    reasons |= dict.fromkeys(("drift", "drift_colour"), f"needs films of {2 * _CONFIG.drift_frames} frames or more")
    if engine is not None:
        calls = _CONFIG.timing_warmup_calls + engine.warmup_frames // engine.chunk_frames + 1
        reasons |= dict.fromkeys(SPEED, f"needs films of {calls * engine.chunk_frames} frames or more")
    else:
        reasons |= dict.fromkeys((*READ_BY_MODEL, *SPEED), "needs a model (--weights)")
    if not synthetic:
        reasons |= dict.fromkeys(("yaw", "pitch", "mouth", "blink", "gaze_x", "gaze_y"), "needs synthetic heads")
    there = {name for row in rows for name in row.figures}
    return {name: reasons.get(name, "needs true pictures, or more frames") for name in FIGURES if name not in there}


def _resolved(options: EvaluateOptions, size_px: int) -> dict[str, Any]:
    return asdict(options) | {"size_px": size_px, "constants": asdict(_CONFIG)}


def _described(engine: Engine | None) -> dict[str, str]:
    if engine is None:
        return {}
    return {
        "weights": engine.name,
        "device": str(engine.device),
        "dtype": str(engine.backend.precision).removeprefix("torch."),
        "backend": engine.backend.name,
        "vram": engine.memory.name,
        "decoder": type(engine.networks.decoder).__name__,
        "image_size_px": str(engine.image_size),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
