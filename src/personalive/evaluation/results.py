"""Options of an evaluation, and its results: of one case, and of the whole as the report tells them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from personalive.errors import InputError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import KINDS, Kind
from personalive.evaluation.methods import COPY, OURS, TRUTH, CallTimes
from personalive.evaluation.previews import CasePreview
from personalive.vision.framing import FramingMode

_CONFIG = EvaluationConfig()


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


@dataclass
class CaseOutcome:
    """All methods in one case."""

    kind: Kind
    results: dict[str, CaseResult] = field(default_factory=dict)  # by the method's name, as all below
    features: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = field(default_factory=dict)  # made and true
    notes: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)  # on the dataset
    skipped: list[str] = field(default_factory=list)
    preview: CasePreview | None = None
    times: list[CallTimes] = field(default_factory=list)  # of our engine
    warmup_frames: int = 0
    scored: int = 0  # frames
