"""Scores of a model on a few synthetic people it has never seen, all pictures in memory: for benchmarks and training.

``personalive evaluate`` measures more, over any number of frames (see runner.py); mouth, eyes and head are read as in
readings.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from personalive.config import KeyframeConfig
from personalive.engine.conditioning import PLAIN
from personalive.engine.controls import Controls
from personalive.engine.engine import Engine
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.metrics import correlation, l1
from personalive.evaluation.readings import READINGS, angles, read, varies
from personalive.synthetic import Identity, Motion, Performance, render

__all__ = [
    "BLINKS",
    "FIRST_SEED",
    "Case",
    "Scores",
    "angles",
    "correlation",
    "l1",
    "play",
    "readings",
    "run_case",
    "score",
    "sheet",
]

FIRST_SEED = EvaluationConfig.first_seed
READ_EVERY_FRAMES = EvaluationConfig.read_every_frames


@dataclass(frozen=True, kw_only=True)
class Case:
    """One portrait, one driver, and what the result should be; all frames (F, S, S, 3) uint8."""

    person: Identity
    motions: list[Motion]
    portrait: np.ndarray
    driving: np.ndarray
    truth: np.ndarray
    output: np.ndarray
    keyframes: int  # stored by the time the last driving frame had entered


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over all frames; errors in [0, 1]; correlations over the frames of each case, then averaged.

    A case whose true motion stays the same has nothing to be followed and no say in that mean: a silent mouth is not
    badly followed. Where no case has any, the mean is not a number.
    """

    l1: float
    copy_l1: float  # of showing the portrait all the time
    gain: float  # 1 - l1 / copy_l1
    yaw: float
    pitch: float
    mouth: float
    blink: float
    yaw_of_truth: float  # the same readings made on the true pictures: the measure's own ceiling
    mouth_of_truth: float
    blink_of_truth: float


def run_case(
    engine: Engine,
    index: int,
    frames: int,
    *,
    cross: bool = False,
    keyframe_threshold: float = KeyframeConfig.threshold,
    controls: Controls = PLAIN,
) -> Case:
    """Animate held-out person ``index``; ``cross`` drives with another held-out person."""
    size = engine.image_size
    person, driver = (
        Identity.sample(FIRST_SEED + index),
        Identity.sample(FIRST_SEED + EvaluationConfig.driver_offset + index),
    )
    performance = Performance.sample(FIRST_SEED + index)
    motions = [performance.at(i) for i in range(frames + 1)]
    truth = np.stack([render(person, motion, size).image for motion in motions])
    driving = np.stack([render(driver, motion, size).image for motion in motions]) if cross else truth
    output, keyframes = play(engine, truth[0], driving[1:], keyframe_threshold, controls)
    return Case(
        person=person,
        motions=motions[1:],
        portrait=truth[0],
        driving=driving[1:],
        truth=truth[1:],
        output=output,
        keyframes=keyframes,
    )


def play(
    engine: Engine,
    portrait: np.ndarray,
    driving: np.ndarray,
    keyframe_threshold: float = KeyframeConfig.threshold,
    controls: Controls = PLAIN,
) -> tuple[np.ndarray, int]:
    """As many frames as ``driving`` has (a multiple of a chunk), the ease-in dropped; and the keyframes stored."""
    state, count, chunks = engine.start(portrait, keyframe_threshold=keyframe_threshold), engine.chunk_frames, []
    for start in range(0, len(driving), count):
        state, frames = engine.step(state, driving[start : start + count], controls=controls)
        chunks.append(frames.numpy())
    chunks += [frames.numpy() for frames in engine.flush(state)]
    return np.concatenate(chunks[engine.warmup_frames // count :]), state.keyframes


def score(engine: Engine, cases: list[Case]) -> Scores:
    """All figures over the cases."""
    rows = [_score_case(engine, case) for case in cases]
    mean = {key: _mean([row[key] for row in rows]) for key in rows[0]}
    return Scores(**mean, gain=1 - mean["l1"] / mean["copy_l1"])


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _followed(found: np.ndarray, true: np.ndarray) -> float:
    return correlation(found, true) if varies(true) else float("nan")


def _score_case(engine: Engine, case: Case) -> dict[str, float]:
    yaw, pitch = (np.array([getattr(m, name) for m in case.motions]) for name in ("yaw_deg", "pitch_deg"))
    some = slice(None, None, READ_EVERY_FRAMES)
    read = dataclasses.replace(case, motions=case.motions[some], truth=case.truth[some], output=case.output[some])
    jaw, blink = (np.array([m[name] for m in read.motions]) for name in ("jawOpen", "eyeBlinkLeft"))
    found, found_truth = angles(engine, case.output), angles(engine, case.truth)
    return {
        "l1": l1(case.output, case.truth),
        "copy_l1": l1(np.broadcast_to(case.portrait, case.truth.shape), case.truth),
        "yaw": _followed(found[0], yaw),
        "pitch": _followed(found[1], pitch),
        "yaw_of_truth": _followed(found_truth[0], yaw),
        "mouth": _followed(readings(read, read.output, ("jawOpen",)), jaw),
        "mouth_of_truth": _followed(readings(read, read.truth, ("jawOpen",)), jaw),
        "blink": _followed(readings(read, read.output, BLINKS), blink),
        "blink_of_truth": _followed(readings(read, read.truth, BLINKS), blink),
    }


BLINKS = READINGS["blink"].expressions


def readings(case: Case, frames: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Which value of the named expressions, 0..1, makes the true head look most like each frame."""
    reading = next(reading for reading in READINGS.values() if reading.expressions == names)
    return np.array([read(case.person, m, f, reading) for m, f in zip(case.motions, frames, strict=True)])


def sheet(cases: list[Case], columns: int) -> np.ndarray:
    """A picture for people: per case a row of drivers, of truths and of outputs, the portrait in front."""
    rows = []
    for case in cases:
        at = np.linspace(0, len(case.output) - 1, columns).astype(int)
        for frames in (case.driving, case.truth, case.output):
            rows.append(np.concatenate([case.portrait, *frames[at]], axis=1))
    return np.concatenate(rows)
