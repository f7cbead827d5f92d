"""Measures over one case, fed frame by frame in constant memory: a few numbers per frame are kept, no film.

S is the side of the pictures compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Case, Moment
from personalive.evaluation.figures import READ_BY_MODEL
from personalive.evaluation.metrics import (
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
from personalive.evaluation.pretrained.lpips import Lpips
from personalive.evaluation.pretrained.onnx import FaceEmbedder, I3d, Smirk
from personalive.evaluation.pretrained.tools import Tools
from personalive.evaluation.readings import READINGS, angles, can_be_read, read, true_value, varies
from personalive.synthetic import Identity
from personalive.vision.resize import ImageArray, frames_to_tensor

_CONFIG = EvaluationConfig()


class Measure(Protocol):
    """Takes each driving frame with the picture made of it; gives figures by name, those it could make."""

    def add(self, moment: Moment, output: ImageArray) -> None:
        """The next frame."""
        ...

    def figures(self) -> dict[str, float]:
        """Of all frames so far."""
        ...


def measures_for(
    case: Case, portrait: ImageArray, engine: Engine | None, tools: Tools, *, read_motion: bool
) -> list[Measure]:
    """Everything that can be measured of a case here.

    Args:
        read_motion: whether to read pose, mouth, blink and gaze of a synthetic head, which takes long.
    """
    found: list[Measure] = [Pictures(), Stability(portrait)]
    if case.person is not None and read_motion:
        found.append(Expressions(case.person))
        found += [] if engine is None else [Angles(engine)]
    if tools.lpips is not None:
        found.append(Perceptual(tools.lpips))
    if tools.faces is not None:
        found.append(Likeness(tools.faces, portrait))
    if tools.smirk is not None:
        found.append(FaceParameters(tools.smirk))
    return found


def mean_of(values: Sequence[float] | np.ndarray) -> float:
    """The mean of the finite values; infinite only where all are: one perfect frame does not hide the others."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("inf")


class Pictures:
    """L1, PSNR and SSIM to the true pictures, where there are any."""

    def __init__(self) -> None:
        self._values: list[tuple[float, float, float]] = []

    def add(self, moment: Moment, output: ImageArray) -> None:
        """See ``Measure``."""
        if moment.truth is not None:
            self._values.append((l1(output, moment.truth), psnr(output, moment.truth), ssim(output, moment.truth)))

    def figures(self) -> dict[str, float]:
        """See ``Measure``."""
        if not self._values:
            return {}
        return {
            name: mean_of(values)
            for name, values in zip(("l1", "psnr", "ssim"), np.transpose(self._values), strict=True)
        }


class Stability:
    """Flicker, and drift over long runs."""

    def __init__(self, portrait: ImageArray) -> None:
        self._portrait = portrait
        self._last: list[ImageArray] = []
        self._flickers: list[float] = []
        self._errors: list[float] = []
        self._colours: list[float] = []

    def add(self, moment: Moment, output: ImageArray) -> None:
        """See ``Measure``."""
        if moment.truth is not None:
            self._errors.append(l1(output, moment.truth))
        self._colours.append(colour_distance(output, self._portrait))
        self._last = [*self._last[-2:], output]
        if len(self._last) == 3:
            self._flickers.append(flicker(*self._last))

    def figures(self) -> dict[str, float]:
        """See ``Measure``."""
        found = {
            "flicker": float(np.mean(self._flickers)) if self._flickers else float("nan"),
            "drift": drift(self._errors, _CONFIG.drift_frames),
            "drift_colour": drift(self._colours, _CONFIG.drift_frames),
        }
        return {name: value for name, value in found.items() if np.isfinite(value)}


class Angles:
    """Yaw and pitch by the model's extractor, a few frames at a time."""

    _BATCH = 4

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[ImageArray] = []
        self._read: list[tuple[float, float]] = []
        self._true: list[tuple[float, float]] = []

    def add(self, moment: Moment, output: ImageArray) -> None:
        """See ``Measure``."""
        if moment.motion is None:
            return
        self._true.append((moment.motion.yaw_deg, moment.motion.pitch_deg))
        self._waiting.append(output)
        if len(self._waiting) == self._BATCH:
            self._empty()

    def _empty(self) -> None:
        if self._waiting:
            yaw, pitch = angles(self._engine, np.stack(self._waiting))
            self._read.extend(zip(yaw.tolist(), pitch.tolist(), strict=True))
            self._waiting = []

    def figures(self) -> dict[str, float]:
        """See ``Measure``."""
        self._empty()
        if not self._read:
            return {}
        found, true = np.array(self._read).T, np.array(self._true).T
        pairs = zip(READ_BY_MODEL, found, true, strict=True)
        return {name: correlation(one, other) for name, one, other in pairs if varies(other)}


class Expressions:
    """Mouth, blink and gaze of a synthetic head, on every so many frames."""

    def __init__(self, person: Identity) -> None:
        self._person, self._seen = person, 0
        self._values: dict[str, list[tuple[float, float]]] = {name: [] for name in READINGS}

    def add(self, moment: Moment, output: ImageArray) -> None:
        """See ``Measure``."""
        index, self._seen = self._seen, self._seen + 1
        if moment.motion is None or index % _CONFIG.read_every_frames:
            return
        for name, reading in READINGS.items():
            if can_be_read(moment.motion, reading):
                found = read(self._person, moment.motion, output, reading)
                self._values[name].append((found, true_value(moment.motion, reading)))

    def figures(self) -> dict[str, float]:
        """See ``Measure``."""
        pairs = {name: np.array(values).T for name, values in self._values.items() if len(values) > 1}
        return {name: correlation(found, true) for name, (found, true) in pairs.items() if varies(true)}


class Perceptual:
    """LPIPS to the true pictures, and tLP against the true film, or the driving one where there is none."""

    def __init__(self, network: Lpips) -> None:
        self._network, self._device = network, next(network.parameters()).device
        self._distances: list[float] = []
        self._steps: list[tuple[float, float]] = []
        self._before: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def add(self, moment: Moment, output: ImageArray) -> None:
        """See ``Measure``."""
        wanted = moment.driver if moment.truth is None else moment.truth
        now = (self._described(output), self._described(wanted))
        if moment.truth is not None:
            self._distances.append(self._network.distance(*now).item())
        if self._before is not None:
            made, true = (self._network.distance(a, b).item() for a, b in zip(self._before, now, strict=True))
            self._steps.append((made, true))
        self._before = now

    def _described(self, picture: ImageArray) -> list[Tensor]:
        return self._network.describe(frames_to_tensor(picture, "signed", device=self._device))

    def figures(self) -> dict[str, float]:
        """See ``Measure``."""
        found = {"lpips": float(np.mean(self._distances))} if self._distances else {}
        if self._steps:
            made, true = np.array(self._steps).T
            found["tlp"] = tlp(made, true)
        return found


class Likeness:
    """ID-SIM: is it still the person of the portrait? Frames without a face that is found do not count."""

    def __init__(self, embedder: FaceEmbedder, portrait: ImageArray) -> None:
        self._embedder, self._wanted = embedder, embedder.embed(portrait)
        self._values: list[float] = []

    def add(self, moment: Moment, output: ImageArray) -> None:
        """See ``Measure``."""
        found = None if self._wanted is None else self._embedder.embed(output)
        if found is not None and self._wanted is not None:
            self._values.append(id_sim(found, self._wanted))

    def figures(self) -> dict[str, float]:
        """See ``Measure``."""
        return {"id_sim": float(np.mean(self._values))} if self._values else {}


class FaceParameters:
    """AED and APD: does it do what the driver does?"""

    def __init__(self, network: Smirk) -> None:
        self._network = network
        self._values: list[tuple[float, float]] = []

    def add(self, moment: Moment, output: ImageArray) -> None:
        """See ``Measure``."""
        made, wanted = self._network.read(output), self._network.read(moment.driver)
        self._values.append((parameter_distance(made[0], wanted[0]), parameter_distance(made[1], wanted[1])))

    def figures(self) -> dict[str, float]:
        """See ``Measure``."""
        if not self._values:
            return {}
        return dict(zip(("aed", "apd"), np.mean(self._values, axis=0).tolist(), strict=True))


class Clips:
    """I3D features of a contender's clips and of the true (or driving) ones, over all its cases."""

    def __init__(self, network: I3d) -> None:
        self._network = network
        self._made: list[ImageArray] = []
        self._wanted: list[ImageArray] = []
        self.made: list[np.ndarray] = []
        self.wanted: list[np.ndarray] = []

    def add(self, moment: Moment, output: ImageArray) -> None:
        """The next frame of a case."""
        self._made.append(output)
        self._wanted.append(moment.driver if moment.truth is None else moment.truth)
        if len(self._made) == _CONFIG.fvd_clip_frames:
            self.made.append(self._network.describe(self._made))
            self.wanted.append(self._network.describe(self._wanted))
            self.end_case()

    def end_case(self) -> None:
        """No clip runs from one case into the next."""
        self._made, self._wanted = [], []
