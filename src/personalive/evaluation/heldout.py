"""Scores of a model on synthetic people it has never seen, against the true pictures.

Mouth and eyes are read from the pictures by analysis through synthesis: the true head is rendered in the true pose
with a range of mouth openings (or blinks), and the one whose picture is nearest in that region is the reading. No
network of ours has a say in it. Head angles are read by the model's own motion extractor; what that reading is worth
is measured on the true pictures in the same table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from personalive.streaming.engine import Engine
from personalive.synthetic import EXPRESSION_NAMES, Identity, Motion, Performance, render

FIRST_SEED = 10_000_000  # people and performances from here on are never used in training
READING_STEPS = 9  # openings tried per reading
READ_EVERY_FRAMES = 4  # mouth and eyes are read on every so many frames: each reading takes as many renders as above
REGION_MARGIN_PX = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """One portrait, one driver, and what the result should be; all frames (F, S, S, 3) uint8."""

    person: Identity
    motions: list[Motion]
    portrait: np.ndarray
    driving: np.ndarray
    truth: np.ndarray
    output: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over all frames; errors in [0, 1]; correlations over the frames of each case, then averaged."""

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


def run_case(engine: Engine, index: int, frames: int, *, cross: bool = False) -> Case:
    """Animate held-out person ``index``; ``cross`` drives with another held-out person."""
    size = engine.image_size
    person, driver = Identity.sample(FIRST_SEED + index), Identity.sample(FIRST_SEED + 5000 + index)
    performance = Performance.sample(FIRST_SEED + index)
    motions = [performance.at(i) for i in range(frames + 1)]
    truth = np.stack([render(person, motion, size).image for motion in motions])
    driving = np.stack([render(driver, motion, size).image for motion in motions]) if cross else truth
    output = np.concatenate(list(animate_frames(engine, truth[0], driving[1:])))
    return Case(
        person=person,
        motions=motions[1:],
        portrait=truth[0],
        driving=driving[1:],
        truth=truth[1:],
        output=output[:frames],
    )


def animate_frames(engine: Engine, portrait: np.ndarray, driving: np.ndarray) -> Iterator[np.ndarray]:
    """Chunks of finished frames, ease-in dropped, as many in total as ``driving`` has (a multiple of a chunk)."""
    yield from islice(_all_chunks(engine, portrait, driving), engine.warmup_frames // engine.chunk_frames, None)


def _all_chunks(engine: Engine, portrait: np.ndarray, driving: np.ndarray) -> Iterator[np.ndarray]:
    state, count = engine.start(portrait), engine.chunk_frames
    for start in range(0, len(driving), count):
        state, frames = engine.step(state, driving[start : start + count])
        yield frames.numpy()
    for frames in engine.flush(state):
        yield frames.numpy()


def score(engine: Engine, cases: list[Case]) -> Scores:
    """All figures over the cases."""
    rows = [_score_case(engine, case) for case in cases]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return Scores(**mean, gain=1 - mean["l1"] / mean["copy_l1"])


def _score_case(engine: Engine, case: Case) -> dict[str, float]:
    yaw, pitch = (np.array([getattr(m, name) for m in case.motions]) for name in ("yaw_deg", "pitch_deg"))
    some = slice(None, None, READ_EVERY_FRAMES)
    read = dataclasses.replace(case, motions=case.motions[some], truth=case.truth[some], output=case.output[some])
    jaw, blink = (np.array([m[name] for m in read.motions]) for name in ("jawOpen", "eyeBlinkLeft"))
    found, found_truth = angles(engine, case.output), angles(engine, case.truth)
    return {
        "l1": l1(case.output, case.truth),
        "copy_l1": l1(np.broadcast_to(case.portrait, case.truth.shape), case.truth),
        "yaw": correlation(found[0], yaw),
        "pitch": correlation(found[1], pitch),
        "yaw_of_truth": correlation(found_truth[0], yaw),
        "mouth": correlation(readings(read, read.output, ("jawOpen",)), jaw),
        "mouth_of_truth": correlation(readings(read, read.truth, ("jawOpen",)), jaw),
        "blink": correlation(readings(read, read.output, BLINKS), blink),
        "blink_of_truth": correlation(readings(read, read.truth, BLINKS), blink),
    }


BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")


def l1(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of uint8 pictures, in [0, 1]."""
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(one, other, strict=True)]) / 255)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation; 0 where a side does not vary."""
    if one.std() < 1e-9 or other.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


@torch.no_grad()
def angles(engine: Engine, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch in degrees of (F, S, S, 3) frames, as the model's extractor reads them."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).to(engine.device, engine.dtype) / 127.5 - 1
    pose = engine.conditioner.extract(pixels)
    return pose.yaw.float().cpu().numpy(), pose.pitch.float().cpu().numpy()


def readings(case: Case, frames: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Which value of the named expressions, 0..1, makes the true head look most like each frame."""
    return np.array([_reading(case.person, m, f, names) for m, f in zip(case.motions, frames, strict=True)])


def _reading(person: Identity, motion: Motion, frame: np.ndarray, names: tuple[str, ...]) -> float:
    values = np.linspace(0, 1, READING_STEPS)
    tried = [render(person, _with(motion, names, value), frame.shape[0]) for value in values]
    eyes = names == BLINKS
    region = np.any([r.eyes_mask if eyes else r.mouth_mask for r in tried], axis=0)
    if not region.any():
        return 0.0
    rows, columns = np.nonzero(region)
    m = REGION_MARGIN_PX
    part = np.s_[max(0, rows.min() - m) : rows.max() + m, max(0, columns.min() - m) : columns.max() + m]
    wanted = frame[part].astype(np.float32)
    errors = np.array([np.square(r.image[part] - wanted).mean() for r in tried])
    return _lowest(values, errors)


def _lowest(values: np.ndarray, errors: np.ndarray) -> float:
    """Where a parabola through the lowest error and its neighbours has its bottom."""
    i = int(errors.argmin())
    if i in (0, len(values) - 1):
        return float(values[i])
    left, middle, right = errors[i - 1 : i + 2]
    bend = left - 2 * middle + right
    return float(values[i] + (values[1] - values[0]) * 0.5 * (left - right) / bend) if bend > 0 else float(values[i])


def _with(motion: Motion, names: tuple[str, ...], value: float) -> Motion:
    expression = motion.expression.copy()
    expression[[EXPRESSION_NAMES.index(name) for name in names]] = value
    return dataclasses.replace(motion, expression=expression)


def sheet(cases: list[Case], columns: int) -> np.ndarray:
    """A picture for people: per case a row of drivers, of truths and of outputs, the portrait in front."""
    rows = []
    for case in cases:
        at = np.linspace(0, len(case.output) - 1, columns).astype(int)
        for frames in (case.driving, case.truth, case.output):
            rows.append(np.concatenate([case.portrait, *frames[at]], axis=1))
    return np.concatenate(rows)
