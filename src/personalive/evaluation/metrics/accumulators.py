"""Metrics over one case, updated frame by frame in constant memory: a few numbers per frame are kept, no video.

S is the side of the images compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from personalive.engine.base import BaseEngine
from personalive.engine.engine import Engine
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Case, Sample
from personalive.evaluation.metrics.catalog import ANGLES
from personalive.evaluation.metrics.functional import (
    colour_distance,
    correlation,
    drift,
    flicker,
    id_sim,
    l1,
    parameter_distance,
    psnr,
    ssim,
    tlp,
)
from personalive.evaluation.metrics.onnx_networks import FaceEmbedder, I3d, Smirk
from personalive.evaluation.metrics.pretrained import PretrainedNetworks
from personalive.evaluation.metrics.synthetic import PROBES, estimate, head_angles, is_visible, true_value, varies
from personalive.models.perceptual import Lpips
from personalive.synthetic import Identity
from personalive.vision.face_fit import angles_deg, fit_pose
from personalive.vision.face_landmarks import BLENDSHAPE_NAMES, FaceReader, FaceReading
from personalive.vision.resize import ImageArray, frames_to_tensor

_CONFIG = EvaluationConfig()
_READING_NOISE = 0.1  # of the least range that counts as moving: a still image reads a little differently each time
_SHAPES = BLENDSHAPE_NAMES[1:]  # "_neutral" says nothing
MotionPairs = Mapping[str, tuple[np.ndarray, np.ndarray]]  # by metric: estimates and true values over the frames


class Metric(Protocol):
    """Accumulator of one or more metrics of a case."""

    def update(self, sample: Sample, output: ImageArray) -> None:
        """Take the next driving frame and the image that a method made of it, (S, S, 3) uint8."""
        ...

    def compute(self) -> dict[str, float]:
        """Values by the names of the catalog, over all frames so far; those that could be computed."""
        ...


def metrics_for(
    case: Case,
    portrait: ImageArray,
    engine: BaseEngine | None,
    networks: PretrainedNetworks,
    *,
    estimate_motion: bool,
) -> list[Metric]:
    """All metrics of a case that can be computed here.

    Args:
        estimate_motion: pose, mouth, blink and gaze of a synthetic head too, which takes long.
    """
    metrics: list[Metric] = [ImageMetrics(), Stability(portrait)]
    if case.person is not None and estimate_motion:
        metrics.append(ExpressionTracking(case.person))
        metrics += [AngleTracking(engine)] if isinstance(engine, Engine) else []
    if networks.lpips is not None:
        metrics.append(Perceptual(networks.lpips))
    if networks.faces is not None:
        metrics.append(IdentitySimilarity(networks.faces, portrait))
    if networks.smirk is not None:
        metrics.append(FaceParameters(networks.smirk))
    if case.person is None and networks.reader is not None:
        metrics.append(FaceFollowing(networks.reader))
    return metrics


def mean_of(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the finite values; infinite only where all are: one perfect frame does not hide the others."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("inf")


class ImageMetrics:
    """L1, PSNR and SSIM to the ground truth, where there is any."""

    _FUNCTIONS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {"l1": l1, "psnr": psnr, "ssim": ssim}

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        if sample.truth is not None:
            for name, function in self._FUNCTIONS.items():
                self._values.setdefault(name, []).append(function(output, sample.truth))

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        return {name: mean_of(values) for name, values in self._values.items()}


class Stability:
    """Flicker, and drift over long runs."""

    def __init__(self, portrait: ImageArray) -> None:
        self._portrait = portrait
        self._last: list[ImageArray] = []
        self._flickers: list[float] = []
        self._errors: list[float] = []
        self._colours: list[float] = []

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        if sample.truth is not None:
            self._errors.append(l1(output, sample.truth))
        self._colours.append(colour_distance(output, self._portrait))
        self._last = [*self._last[-2:], output]
        if len(self._last) == 3:
            self._flickers.append(flicker(*self._last))

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        values = {
            "flicker": float(np.mean(self._flickers)) if self._flickers else float("nan"),
            "drift": drift(self._errors, _CONFIG.drift_frames),
            "drift_colour": drift(self._colours, _CONFIG.drift_frames),
        }
        return {name: value for name, value in values.items() if np.isfinite(value)}


def correlations(pairs: MotionPairs) -> dict[str, float]:
    """Correlation of the estimates with the true values, where those vary."""
    return {name: correlation(found, true) for name, (found, true) in pairs.items() if varies(true)}


class AngleTracking:
    """Yaw and pitch by the model's extractor, a few frames at a time."""

    _BATCH = 4

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch: list[ImageArray] = []
        self._found: list[tuple[float, float]] = []
        self._true: list[tuple[float, float]] = []

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        if sample.motion is None:
            return
        self._true.append((sample.motion.yaw_deg, sample.motion.pitch_deg))
        self._batch.append(output)
        if len(self._batch) == self._BATCH:
            self._estimate()

    def _estimate(self) -> None:
        if self._batch:
            yaw, pitch = head_angles(self._engine, np.stack(self._batch))
            self._found.extend(zip(yaw.tolist(), pitch.tolist(), strict=True))
            self._batch = []

    def pairs(self) -> MotionPairs:
        """Angles in degrees over all frames so far."""
        self._estimate()
        if not self._found:
            return {}
        return dict(zip(ANGLES, zip(np.array(self._found).T, np.array(self._true).T, strict=True), strict=True))

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        return correlations(self.pairs())


class ExpressionTracking:
    """Mouth, blink and gaze of a synthetic head, on every so many frames."""

    def __init__(self, person: Identity) -> None:
        self._person, self._seen = person, 0
        self._values: dict[str, list[tuple[float, float]]] = {name: [] for name in PROBES}

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        index, self._seen = self._seen, self._seen + 1
        if sample.motion is None or index % _CONFIG.estimate_every_frames:
            return
        for name, probe in PROBES.items():
            if is_visible(sample.motion, probe):
                found = estimate(self._person, sample.motion, output, probe)
                self._values[name].append((found, true_value(sample.motion, probe)))

    def pairs(self) -> MotionPairs:
        """Values in the probes' ranges, of those estimated at least twice."""
        arrays = {name: np.array(values).T for name, values in self._values.items() if len(values) > 1}
        return {name: (found, true) for name, (found, true) in arrays.items()}

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        return correlations(self.pairs())


class Perceptual:
    """LPIPS to the ground truth, and tLP against the true video, or the driving one where there is none."""

    def __init__(self, network: Lpips) -> None:
        self._network, self._device = network, next(network.parameters()).device
        self._distances: list[float] = []
        self._steps: list[tuple[float, float]] = []
        self._before: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        target = sample.driver if sample.truth is None else sample.truth
        now = (self._features(output), self._features(target))
        if sample.truth is not None:
            self._distances.append(self._network.distance(*now).item())
        if self._before is not None:
            made, true = (self._network.distance(a, b).item() for a, b in zip(self._before, now, strict=True))
            self._steps.append((made, true))
        self._before = now

    def _features(self, image: ImageArray) -> list[Tensor]:
        return self._network.describe(frames_to_tensor(image, "signed", device=self._device))

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        values = {"lpips": float(np.mean(self._distances))} if self._distances else {}
        if self._steps:
            made, true = np.array(self._steps).T
            values["tlp"] = tlp(made, true)
        return values


class IdentitySimilarity:
    """ID-SIM to the portrait. Frames in which no face is found do not count."""

    def __init__(self, embedder: FaceEmbedder, portrait: ImageArray) -> None:
        self._embedder, self._target = embedder, embedder.embed(portrait)
        self._values: list[float] = []

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        found = None if self._target is None else self._embedder.embed(output)
        if found is not None and self._target is not None:
            self._values.append(id_sim(found, self._target))

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        return {"id_sim": float(np.mean(self._values))} if self._values else {}


class FaceParameters:
    """AED and APD: distance of expression and pose parameters to the driver's."""

    def __init__(self, network: Smirk) -> None:
        self._network = network
        self._values: list[tuple[float, float]] = []

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        made, driver = self._network.read(output), self._network.read(sample.driver)
        self._values.append((parameter_distance(made[0], driver[0]), parameter_distance(made[1], driver[1])))

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        if not self._values:
            return {}
        return dict(zip(("aed", "apd"), np.mean(self._values, axis=0).tolist(), strict=True))


class FaceFollowing:
    """Expression and head pose of video and driver, read by a landmark network: how far they are apart, and whether
    one follows the other. Frames in which either shows no face do not count.
    """

    _FOLLOWED: Mapping[str, tuple[str, ...]] = {
        "jaw_follows": ("jawOpen",),
        "blink_follows": ("eyeBlinkLeft", "eyeBlinkRight"),
        "smile_follows": ("mouthSmileLeft", "mouthSmileRight"),
    }

    def __init__(self, reader: FaceReader) -> None:
        self._reader = reader
        self._before: tuple[FaceReading | None, FaceReading | None] = (None, None)
        self._values: list[np.ndarray] = []  # (2, 51 + 3) of a frame: video and driver, blendshapes and angles

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        made = self._reader.read(output, self._before[0])
        driver = self._reader.read(sample.driver, self._before[1])
        self._before = made, driver
        if made is not None and driver is not None:
            self._values.append(np.stack([self._described(reading) for reading in (made, driver)]))

    @staticmethod
    def _described(reading: FaceReading) -> np.ndarray:
        return np.concatenate([reading.blendshapes[1:], angles_deg(fit_pose(reading.landmarks).rotation)])

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        if not self._values:
            return {}
        made, driver = np.stack(self._values, axis=1)
        apart = np.abs(made - driver).mean(axis=0)
        found = {"expression_error": float(apart[:-3].mean()), "pose_error_deg": float(apart[-3:].mean())}
        columns = {name: [_SHAPES.index(s) for s in shapes] for name, shapes in self._FOLLOWED.items()}
        for name, chosen in (columns | {"yaw_follows": [len(_SHAPES)]}).items():
            of_made, of_driver = made[:, chosen].mean(axis=1), driver[:, chosen].mean(axis=1)
            least = _CONFIG.least_yaw_deg if name == "yaw_follows" else _CONFIG.least_blendshape
            if np.ptp(of_driver) >= least:
                still = np.ptp(of_made) < _READING_NOISE * least
                found[name] = 0.0 if still else correlation(of_made, of_driver)
        return found


class ClipFeatures:
    """I3D features of a method's clips and of the true (or driving) ones in a case, for FVD: of whole clips only."""

    def __init__(self, network: I3d) -> None:
        self._network = network
        self._frames: list[tuple[ImageArray, ImageArray]] = []
        self.made: list[np.ndarray] = []
        self.true: list[np.ndarray] = []

    def update(self, sample: Sample, output: ImageArray) -> None:
        """Take the next frame of a case."""
        self._frames.append((output, sample.driver if sample.truth is None else sample.truth))
        if len(self._frames) == _CONFIG.fvd_clip_frames:
            for features, clip in zip((self.made, self.true), zip(*self._frames, strict=True), strict=True):
                features.append(self._network.describe(list(clip)))
            self._frames = []
