"""One evaluation: every method reenacts every case, each frame is scored as it comes, and none is kept."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personalive.engine.base import BaseEngine
from personalive.errors import InputError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import (
    KINDS,
    Case,
    Dataset,
    DatasetOptions,
    Kind,
    Sample,
    SyntheticHeads,
    open_dataset,
    write_inputs,
)
from personalive.evaluation.methods import COPY, OURS, TRUTH, Baseline, EngineMethod, Method, VideoMethod
from personalive.evaluation.metrics.accumulators import ClipFeatures, Metric, mean_of, metrics_for
from personalive.evaluation.metrics.catalog import ANGLES, EXPRESSIONS, FACES, METRICS, SPEED
from personalive.evaluation.metrics.functional import frechet_distance
from personalive.evaluation.metrics.pretrained import PretrainedNetworks, load_pretrained
from personalive.evaluation.previews import CasePreview
from personalive.vision.faces import find_detector
from personalive.vision.framing import FramingMode
from personalive.vision.resize import ImageArray

_CONFIG = EvaluationConfig()
_PACKAGES = ("personalive", "torch", "numpy", "opencv-python-headless", "av", "torchmetrics", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """All options of an evaluation but the model."""

    dataset: str = f"synthetic:{_CONFIG.people}"
    kinds: tuple[Kind, ...] = KINDS
    methods: tuple[tuple[str, str], ...] = ()  # name and folder of videos
    people: int | None = None  # at most so many cases of a kind
    frames: int | None = None  # at most so many frames of each case
    pairs: str | None = None  # file of portraits and their drivers
    framing: FramingMode = "auto"
    center_fallback: bool = False
    size_px: int | None = None  # side of the images compared without a model; else the model's
    seed: int = 0
    steps: int | None = None  # of denoising; None: the model's own
    metrics_folder: str = ""  # of the metrics' pretrained networks

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
    """Progress of an evaluation."""

    frames: int  # scored
    total: int | None  # where every video's length is known
    fps: float  # scored frames per second


@dataclass
class CaseResult:
    """Metrics of one method in one case."""

    case: str
    frames: int
    metrics: dict[str, float]


@dataclass
class Row:
    """Metrics of one method in all cases of a kind: means over its cases, FVD and speed over all of them."""

    kind: Kind
    method: str
    cases: list[CaseResult] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Evaluation:
    """Content of the report."""

    options: dict[str, Any]
    model: dict[str, str]
    versions: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # metric -> why there is none
    files: list[dict[str, str]] = field(default_factory=list)  # pretrained networks that were used
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    previews: list[CasePreview] = field(default_factory=list)
    seconds: float = 0.0


def evaluate(
    options: EvaluateOptions,
    engine: BaseEngine | None,
    *,
    progress: Callable[[Progress], None] | None = None,
    inputs: Path | None = None,
) -> Evaluation:
    """Score ``engine`` and the videos of other methods on a dataset.

    Args:
        options: dataset, methods and limits.
        engine: a loaded model; None scores other methods' videos alone.
        progress: called after every scored frame.
        inputs: a new folder for every case's portrait and driving video, for other methods.

    Raises:
        InputError: nothing can be evaluated: no dataset, nothing readable in it, no method.
        CheckpointError: a pretrained network's file is damaged or another one.
    """
    if engine is None and not options.methods:
        raise InputError("nothing to score: give a model with --weights, or videos with --method NAME=FOLDER")
    if engine is not None and options.size_px not in (None, engine.image_size):
        raise InputError(
            f"size {options.size_px}: this model makes {engine.image_size} px, which decides: leave --size out"
        )
    run = _Run(options, engine, progress)
    if inputs is not None:
        run.write_inputs(inputs)
    return run.result()


def score(
    method: Method, cases: Iterable[Case], make_metrics: Callable[[Case], Sequence[Metric]]
) -> dict[str, float]:
    """Means over the cases that have a metric, for a method outside of a whole evaluation.

    Args:
        make_metrics: gives fresh accumulators for a case.
    """
    found = []
    for case in cases:
        metrics = make_metrics(case)
        for sample, output in method.reenact(case):
            for metric in metrics:
                metric.update(sample, output)
        found.append(_computed(metrics))
    return _means(found)


class _Run:
    """State of one call of ``evaluate``."""

    def __init__(
        self, options: EvaluateOptions, engine: BaseEngine | None, progress: Callable[[Progress], None] | None
    ) -> None:
        self.options, self.engine, self.progress = options, engine, progress
        size = engine.image_size if engine is not None else options.size_px or _CONFIG.size_px
        self.dataset = self._open_dataset(size)
        self.cases = {kind: self.dataset.cases(kind) for kind in options.kinds}
        self.methods = [VideoMethod(name, Path(folder), size) for name, folder in options.methods]
        self._check_methods()
        weights = None if engine is None else engine.folder
        self.networks = load_pretrained(
            Path(options.metrics_folder), weights, torch.device("cpu") if engine is None else engine.device
        )
        self.evaluation = Evaluation(_resolved(options, size), _described(engine), _versions())
        self.evaluation.files = [
            {"file": one.file.name, "sha256": one.sha256, "check": one.check, "licence": one.file.licence}
            for one in self.networks.found
        ]
        self.evaluation.skipped += self.dataset.skipped
        self.begun, self.scored = time.monotonic(), 0
        self.total = self._count_frames()
        self.known: dict[str, dict[str, float]] = {}  # metrics of the ground truth, which both kinds share

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
            if not any(method.covers(case) for case in every):
                raise InputError(
                    f"{folder}: no video of {name} has the name of a case: name them like {every[0].name}.mp4"
                )

    def _all_methods(self) -> list[Method]:
        ours = (
            []
            if self.engine is None
            else [EngineMethod(self.engine, seed=self.options.seed, steps=self.options.steps)]
        )
        return [*ours, *self.methods, Baseline(COPY), Baseline(TRUTH)]

    def _count_frames(self) -> int | None:
        counts = [
            case.frames
            for cases in self.cases.values()
            for case in cases
            for method in self._all_methods()
            if method.covers(case)
        ]
        return None if any(count is None for count in counts) else sum(count or 0 for count in counts)

    # --- the work -----------------------------------------------------------------------------------------

    def write_inputs(self, folder: Path) -> None:
        """Write portraits and driving videos of all cases, for other methods."""
        every = [case for cases in self.cases.values() for case in cases]
        self.evaluation.skipped += write_inputs(every, folder)

    def result(self) -> Evaluation:
        """Reenact all cases and gather the metrics."""
        for kind in self.options.kinds:
            self._run_kind(kind)
        found = self.evaluation
        if not any(row.cases for row in found.rows):
            reason = f"; the first reason: {found.skipped[0]}" if found.skipped else ""
            raise InputError(f"{self.options.dataset}: not one case could be evaluated{reason}")
        found.missing = _missing(found.rows, self.networks, self.engine, isinstance(self.dataset, SyntheticHeads))
        found.notes += self.dataset.notes
        found.notes += [note for method in self.methods for note in dict.fromkeys(method.notes)]
        found.skipped += [line for method in self.methods for line in method.skipped]
        found.seconds = time.monotonic() - self.begun
        return found

    def _run_kind(self, kind: Kind) -> None:
        methods, i3d = self._all_methods(), self.networks.i3d
        rows = [Row(kind, method.name) for method in methods]
        clips = [None if i3d is None else ClipFeatures(i3d) for _ in methods]
        for number, case in enumerate(self.cases[kind]):
            preview = CasePreview(case.name, kind) if number < _CONFIG.preview_cases else None
            for method, row, features in zip(methods, rows, clips, strict=True):
                if not method.covers(case):
                    if isinstance(method, VideoMethod):
                        self.evaluation.skipped.append(f"{method.name}: has no video named {case.name}")
                    continue
                try:
                    row.cases.append(self._run_case(method, case, preview, features))
                except InputError as error:
                    self.evaluation.skipped.append(f"{case.name} ({kind}, {method.name}): {error}")
                    if preview is not None:
                        preview.rows.pop(method.name, None)
                    if not isinstance(method, VideoMethod):
                        break  # the case itself cannot be read
            if preview is not None and len(preview.rows) > 1:
                self.evaluation.previews.append(preview)
        for method, row, features in zip(methods, rows, clips, strict=True):
            row.metrics = _means([case.metrics for case in row.cases]) | _fvd(features) | method.speed()
        self.evaluation.rows += [row for row in rows if row.cases]

    def _run_case(
        self, method: Method, case: Case, preview: CasePreview | None, clips: ClipFeatures | None
    ) -> CaseResult:
        known = f"{method.name}/{case.truth_id}" if method.name == TRUTH and clips is None else ""
        portrait, metrics = case.portrait(), []
        if known not in self.known:
            metrics = metrics_for(case, portrait, self.engine, self.networks, estimate_motion=method.name != COPY)
        updates: list[Callable[[Sample, ImageArray], None]] = [metric.update for metric in metrics]
        if clips is not None:
            updates.append(clips.update)
        if preview is not None:
            preview.begin(method.name, portrait)
            updates.append(partial(preview.add, method.name))
        frames = 0
        for sample, output in method.reenact(case):
            for update in updates:
                update(sample, output)
            frames += 1
            self._report_progress()
        if clips is not None:
            clips.end_case()
        if not frames:
            raise InputError("not one frame to compare")
        computed = _computed(metrics)
        if known:
            computed = self.known.setdefault(known, computed)
        return CaseResult(case.name, frames, computed)

    def _report_progress(self) -> None:
        self.scored += 1
        if self.progress is not None:
            spent = max(time.monotonic() - self.begun, 1e-9)
            self.progress(Progress(frames=self.scored, total=self.total, fps=self.scored / spent))


def _computed(metrics: Iterable[Metric]) -> dict[str, float]:
    return {name: value for metric in metrics for name, value in metric.compute().items()}


def _means(cases: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the cases that have a metric, in the catalog's order."""
    names = dict.fromkeys([*METRICS, *(name for case in cases for name in case)])
    values = {name: [case[name] for case in cases if name in case] for name in names}
    return {name: mean_of(found) for name, found in values.items() if found}


def _fvd(clips: ClipFeatures | None) -> dict[str, float]:
    if clips is None or len(clips.made) < 2:
        return {}
    return {"fvd": frechet_distance(np.stack(clips.made), np.stack(clips.true))}


def _missing(
    rows: list[Row], networks: PretrainedNetworks, engine: BaseEngine | None, synthetic: bool
) -> dict[str, str]:
    """Reasons for metrics that no row has."""
    reasons = dict(networks.missing)
    reasons |= dict.fromkeys(("drift", "drift_colour"), f"needs videos of {2 * _CONFIG.drift_frames} frames or more")
    if engine is not None:
        calls = _CONFIG.timing_warmup_calls + engine.warmup_frames // engine.chunk_frames + 1
        reasons |= dict.fromkeys(SPEED, f"needs videos of {calls * engine.chunk_frames} frames or more")
    else:
        reasons |= dict.fromkeys((*ANGLES, *SPEED), "needs a model (--weights)")
    if not synthetic:
        reasons |= dict.fromkeys((*ANGLES, *EXPRESSIONS), "needs synthetic heads")
        reasons |= dict.fromkeys(FACES, "needs faces of people that move, in video and driver")
    else:
        reasons |= dict.fromkeys(FACES, "needs videos of people")
    there = {name for row in rows for name in row.metrics}
    return {name: reasons.get(name, "needs ground truth, or more frames") for name in METRICS if name not in there}


def _resolved(options: EvaluateOptions, size_px: int) -> dict[str, Any]:
    return asdict(options) | {"size_px": size_px, "constants": asdict(_CONFIG)}


def _described(engine: BaseEngine | None) -> dict[str, str]:
    if engine is None:
        return {}
    return {
        "weights": engine.name,
        "device": str(engine.device),
        **engine.facts,
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
