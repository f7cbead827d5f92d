"""One evaluation: every method reenacts every case, each frame is scored as it comes, and none is kept."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
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
    Case,
    Dataset,
    DatasetOptions,
    Kind,
    Sample,
    SyntheticHeads,
    open_dataset,
    write_inputs,
)
from personalive.evaluation.methods import (
    COPY,
    TRUTH,
    Baseline,
    EngineMethod,
    Method,
    VideoMethod,
)
from personalive.evaluation.metrics.accumulators import ClipFeatures, Metric, mean_of, metrics_for
from personalive.evaluation.metrics.catalog import ANGLES, EXPRESSIONS, FACES, METRICS, SPEED
from personalive.evaluation.metrics.functional import frechet_distance
from personalive.evaluation.metrics.pretrained import PretrainedNetworks, load_pretrained
from personalive.evaluation.previews import CasePreview
from personalive.evaluation.results import CaseOutcome, CaseResult, EvaluateOptions, Evaluation, Progress, Row
from personalive.vision.faces import find_detector
from personalive.vision.resize import ImageArray

Task = tuple[Kind, int]  # a kind, and the number of one of its cases
_CONFIG = EvaluationConfig()
_PACKAGES = ("personalive", "torch", "numpy", "opencv-python-headless", "av", "torchmetrics", "onnxruntime")


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
    begun, evaluator = time.monotonic(), Evaluator(options, engine)
    unwritten = [] if inputs is None else evaluator.write_inputs(inputs)
    outcomes: list[CaseOutcome] = []

    def report(frames: int) -> None:
        if progress is not None:
            scored, spent = frames + sum(outcome.scored for outcome in outcomes), max(time.monotonic() - begun, 1e-9)
            progress(Progress(frames=scored, total=evaluator.total, fps=scored / spent))

    for task in evaluator.tasks:
        outcomes.append(evaluator.run_case(task, report))
    return evaluator.gather(outcomes, unwritten, time.monotonic() - begun)


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


class Evaluator:
    """Cases of an evaluation, each run by itself and in any order, and the report of all."""

    def __init__(self, options: EvaluateOptions, engine: BaseEngine | None) -> None:
        """
        Args:
            options, engine: as for ``evaluate``, which also says what is raised.
        """
        if engine is None and not options.methods:
            raise InputError("nothing to score: give a model with --weights, or videos with --method NAME=FOLDER")
        if engine is not None and options.size_px not in (None, engine.image_size):
            raise InputError(
                f"size {options.size_px}: this model makes {engine.image_size} px, which decides: leave --size out"
            )
        self.options, self.engine = options, engine
        size = engine.image_size if engine is not None else options.size_px or _CONFIG.size_px
        self.size_px, self.dataset = size, self._open_dataset(size)
        self.cases = {kind: self.dataset.cases(kind) for kind in options.kinds}
        self.tasks: list[Task] = []
        for kind in options.kinds:
            self.tasks.extend((kind, number) for number in range(len(self.cases[kind])))
        self.methods = [VideoMethod(name, Path(folder), size) for name, folder in options.methods]
        self._check_methods()
        weights = None if engine is None else engine.folder
        self.networks = load_pretrained(
            Path(options.metrics_folder), weights, torch.device("cpu") if engine is None else engine.device
        )
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

    def write_inputs(self, folder: Path) -> list[str]:
        """Write portraits and driving videos of all cases, for other methods; returns a line for each left out."""
        return write_inputs([case for cases in self.cases.values() for case in cases], folder)

    def run_case(self, task: Task, progress: Callable[[int], None]) -> CaseOutcome:
        """Reenact one of ``tasks`` by every method.

        Args:
            progress: called after every frame with the number scored.
        """
        kind, number = task
        case, outcome = self.cases[kind][number], CaseOutcome(kind)
        preview = outcome.preview = CasePreview(case.name, kind) if number < _CONFIG.preview_cases else None
        self.dataset.notes.clear()
        for method in self._all_methods():
            if not method.covers(case):
                if isinstance(method, VideoMethod):
                    outcome.skipped.append(f"{method.name}: has no video named {case.name}")
                continue
            try:
                outcome.results[method.name] = self._run_method(method, case, outcome, progress)
            except InputError as error:
                outcome.skipped.append(f"{case.name} ({kind}, {method.name}): {error}")
                if preview is not None:
                    preview.rows.pop(method.name, None)
                if not isinstance(method, VideoMethod):
                    break  # the case itself cannot be read
            finally:
                if isinstance(method, EngineMethod):
                    outcome.times, outcome.warmup_frames = method.times, method.warmup_frames
        for method in self.methods:
            outcome.notes[method.name], method.notes = method.notes, []
        outcome.remarks = list(self.dataset.notes)
        return outcome

    def _run_method(
        self, method: Method, case: Case, outcome: CaseOutcome, progress: Callable[[int], None]
    ) -> CaseResult:
        clips = None if self.networks.i3d is None else ClipFeatures(self.networks.i3d)
        known = f"{method.name}/{case.truth_id}" if method.name == TRUTH and clips is None else ""
        portrait, metrics, preview = case.portrait(), [], outcome.preview
        if known not in self.known:
            metrics = metrics_for(case, portrait, self.engine, self.networks, estimate_motion=method.name != COPY)
        updates: list[Callable[[Sample, ImageArray], None]] = [metric.update for metric in metrics]
        if clips is not None:
            outcome.features[method.name] = clips.made, clips.true
            updates.append(clips.update)
        if preview is not None:
            preview.begin(method.name, portrait)
            updates.append(partial(preview.add, method.name))
        before = outcome.scored
        for sample, output in method.reenact(case):
            for update in updates:
                update(sample, output)
            outcome.scored += 1
            progress(outcome.scored)
        if outcome.scored == before:
            raise InputError("not one frame to compare")
        computed = _computed(metrics)
        if known:
            computed = self.known.setdefault(known, computed)
        return CaseResult(case.name, outcome.scored - before, computed)

    def gather(self, outcomes: Sequence[CaseOutcome], unwritten: Sequence[str], seconds: float) -> Evaluation:
        """Content of the report.

        Args:
            outcomes: of all ``tasks``, in their order.
            unwritten: what ``write_inputs`` returned.
            seconds: that the evaluation took.
        """
        found = Evaluation(_resolved(self.options, self.size_px), _described(self.engine), _versions())
        found.files = [
            {"file": one.file.name, "sha256": one.sha256, "check": one.check, "licence": one.file.licence}
            for one in self.networks.found
        ]
        found.skipped = [*self.dataset.skipped, *unwritten, *(line for one in outcomes for line in one.skipped)]
        for kind in self.options.kinds:
            found.rows += self._rows(kind, [outcome for outcome in outcomes if outcome.kind == kind])
        if not found.rows:
            reason = f"; the first reason: {found.skipped[0]}" if found.skipped else ""
            raise InputError(f"{self.options.dataset}: not one case could be evaluated{reason}")
        previews = (outcome.preview for outcome in outcomes)
        found.previews = [preview for preview in previews if preview is not None and len(preview.rows) > 1]
        found.missing = _missing(found.rows, self.networks, self.engine, isinstance(self.dataset, SyntheticHeads))
        found.notes = list(dict.fromkeys(line for outcome in outcomes for line in outcome.remarks))
        for method in self.methods:
            found.notes += dict.fromkeys(line for outcome in outcomes for line in outcome.notes[method.name])
            found.skipped += method.skipped
        found.seconds = seconds
        return found

    def _rows(self, kind: Kind, outcomes: Sequence[CaseOutcome]) -> list[Row]:
        """Rows of the methods that have a case of a kind."""
        rows: list[Row] = []
        for method in self._all_methods():
            cases = [outcome.results[method.name] for outcome in outcomes if method.name in outcome.results]
            features = [outcome.features[method.name] for outcome in outcomes if method.name in outcome.features]
            if isinstance(method, EngineMethod):
                method.times = [times for outcome in outcomes for times in outcome.times]
                method.warmup_frames = next((o.warmup_frames for o in reversed(outcomes) if o.times), 0)
            metrics = _means([case.metrics for case in cases]) | _fvd(features) | method.speed()
            rows += [Row(kind, method.name, cases, metrics)] if cases else []
        return rows


def _computed(metrics: Iterable[Metric]) -> dict[str, float]:
    return {name: value for metric in metrics for name, value in metric.compute().items()}


def _means(cases: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the cases that have a metric, in the catalog's order."""
    names = dict.fromkeys([*METRICS, *(name for case in cases for name in case)])
    values = {name: [case[name] for case in cases if name in case] for name in names}
    return {name: mean_of(found) for name, found in values.items() if found}


def _fvd(features: Sequence[tuple[list[np.ndarray], list[np.ndarray]]]) -> dict[str, float]:
    made, true = ([clip for one in features for clip in one[side]] for side in (0, 1))
    return {"fvd": frechet_distance(np.stack(made), np.stack(true))} if len(made) >= 2 else {}


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
