"""The rendered training set on disk: images as memory maps, ground truth as one npz.

Letters: G groups, P people per group (2, with the same performance), K frames per person, S image side.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from personalive.errors import InputError
from personalive.synthetic import EXPRESSION_NAMES, Identity, Motion, Performance, render
from personalive.training.presets import DataConfig

PEOPLE = 2
CELLS = 16  # masks are kept as coverage on a grid of this side, the latent's
MASKS = ("face", "eyes", "mouth")
POSE_NAMES = ("yaw_deg", "pitch_deg", "roll_deg", "scale", "tx", "ty")


class Truth(NamedTuple):
    """Ground truth of every frame, beside its pixels."""

    pose: np.ndarray  # (G, K, 6) in the order of POSE_NAMES
    expression: np.ndarray  # (G, K, E)
    keypoints: np.ndarray  # (G, P, 21, 3) canonical
    identity: np.ndarray  # (G, P, I)
    masks: np.ndarray  # (G, P, K, 3, CELLS, CELLS) uint8 coverage


class RenderedSet:
    """A training set that ``render_set`` wrote."""

    def __init__(self, folder: Path) -> None:
        try:
            self.config = DataConfig(**json.loads((folder / "data.json").read_text()))
            with np.load(folder / "truth.npz") as file:
                self.truth = Truth(**{name: file[name] for name in Truth._fields})
            self.images = np.memmap(folder / "images.u8", np.uint8, "r", shape=image_shape(self.config))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{folder}: no training set here: run `python -m personalive.training render`"
            ) from error
        self.folder = folder


def image_shape(config: DataConfig) -> tuple[int, ...]:
    """(G, P, K, S, S, 3)."""
    return (config.groups, PEOPLE, config.frames, config.size_px, config.size_px, 3)


def sequence(config: DataConfig, group: int) -> tuple[list[Identity], list[Motion]]:
    """The two people and the K motions of one group: it depends on the config's seed and ``group`` alone."""
    seed = config.first_seed + group
    performance = Performance.sample(seed)
    offset = int(np.random.default_rng([seed, 11]).integers(0, 500))
    motions = [performance.at(offset + k * config.frame_gap) for k in range(config.frames)]
    return [Identity.sample(PEOPLE * seed + person) for person in range(PEOPLE)], motions


def render_set(folder: Path, config: DataConfig, progress: Callable[[int], None], workers: int = 2) -> None:
    """Render all groups in parallel; ``progress`` hears the number of finished groups."""
    folder.mkdir(parents=True, exist_ok=True)
    np.memmap(folder / "images.u8", np.uint8, "w+", shape=image_shape(config)).flush()
    jobs = [(folder, config, group) for group in range(config.groups)]
    rows = []
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for row in pool.imap(_render_group, jobs, chunksize=8):
            rows.append(row)
            progress(len(rows))
    stacked = {name: np.stack([getattr(row, name) for row in rows]) for name in Truth._fields}
    np.savez(folder / "truth.npz", allow_pickle=False, **stacked)
    (folder / "data.json").write_text(json.dumps(dataclasses.asdict(config), indent=2))


def _render_group(job: tuple[Path, DataConfig, int]) -> Truth:
    folder, config, group = job
    people, motions = sequence(config, group)
    images = np.memmap(folder / "images.u8", np.uint8, "r+", shape=image_shape(config))
    masks = np.empty((PEOPLE, config.frames, len(MASKS), CELLS, CELLS), np.uint8)
    keypoints = []
    for p, person in enumerate(people):
        for k, motion in enumerate(motions):
            frame = render(person, motion, config.size_px)
            images[group, p, k] = frame.image
            masks[p, k] = coverage((frame.face_mask, frame.eyes_mask, frame.mouth_mask))
        keypoints.append(frame.canonical_keypoints)
    pose = np.array([[getattr(m, name) for name in POSE_NAMES] for m in motions], np.float32)
    expression = np.stack([m.expression for m in motions]).reshape(-1, len(EXPRESSION_NAMES))
    identity = np.stack([person.to_vector() for person in people])
    return Truth(pose, expression, np.stack(keypoints), identity, masks)


def coverage(masks: Sequence[np.ndarray]) -> np.ndarray:
    """M masks (S, S) bool -> (M, CELLS, CELLS) uint8, 255 where a cell is full."""
    cell = masks[0].shape[0] // CELLS
    share = np.stack(masks).reshape(len(masks), CELLS, cell, CELLS, cell).mean(axis=(2, 4))
    return np.round(255 * share).astype(np.uint8)
