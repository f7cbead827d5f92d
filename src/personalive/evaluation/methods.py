"""Methods that are compared: our engine, videos made by any other method, and two baselines.

A method reenacts a case: it gives one image per driving frame, in order, holding only the frames in flight.
S is the side of the images compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from personalive.config import KeyframeConfig
from personalive.engine.base import PLAIN, BaseEngine
from personalive.engine.controls import Controls
from personalive.engine.state import StreamState, Window
from personalive.errors import InputError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Case, Sample, find_videos
from personalive.evaluation.metrics.functional import fps, inter_chunk_latency_ms, motion_to_photon_ms, percentiles
from personalive.media.reader import open_video
from personalive.vision.config import FramingConfig
from personalive.vision.framing import whole_square
from personalive.vision.resize import ImageArray, crop_and_resize

OURS, COPY, TRUTH = "ours", "copied portrait", "ground truth"
Outputs = Iterator[tuple[Sample, ImageArray]]


class Method(Protocol):
    """Anything that makes a video of a portrait and a driving video."""

    name: str

    def covers(self, case: Case) -> bool:
        """Tell whether it has an output for this case."""
        ...

    def reenact(self, case: Case) -> Outputs:
        """Each driving frame with the image made of it."""
        ...

    def speed(self) -> dict[str, float]:
        """Speed over all cases so far, where it is known."""
        ...


# --- our engine ---------------------------------------------------------------------------------------------


@dataclass
class CallTimes:
    """Time stamps of the chunks of one case as they entered and left the engine: seconds of engine time only."""

    entered_s: list[float] = field(default_factory=list)
    left_s: list[float] = field(default_factory=list)
    now_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Append a call that took so long."""
        self.entered_s.append(self.now_s)
        self.now_s += seconds
        self.left_s.append(self.now_s)


class EngineMethod:
    """Reenactment by a loaded model through its public stream."""

    name = OURS

    def __init__(
        self,
        engine: BaseEngine,
        *,
        seed: int = 0,
        keyframe_threshold: float = KeyframeConfig.threshold,
        steps: int | None = None,
        controls: Controls = PLAIN,
        warmup_calls: int = EvaluationConfig.timing_warmup_calls,
    ) -> None:
        """
        Args:
            seed, keyframe_threshold, steps, controls: as for ``Engine.stream``.
            warmup_calls: at the start of each case, not timed.

        Raises:
            InputError: steps that the model does not have.
        """
        self._engine, self._warmup_calls = engine, warmup_calls
        engine.check_steps(steps)
        self.warmup_frames = engine.warmup_frames  # of the last case
        self._options: dict[str, Any] = {
            "seed": seed,
            "keyframe_threshold": keyframe_threshold,
            "steps": steps,
            "controls": controls,
        }
        self.times: list[CallTimes] = []
        self.keyframes: list[int] = []  # stored by the last step, of each case

    def covers(self, case: Case) -> bool:
        """Always true."""
        return True

    def reenact(self, case: Case) -> Outputs:
        """See ``Method``."""
        times, keyframes = CallTimes(), 0

        def on_step(state: StreamState, seconds: float) -> None:
            nonlocal keyframes
            keyframes, self.warmup_frames = state.keyframes, state.warmup_frames
            times.add(seconds)

        yield from reenact(
            self._engine,
            case.portrait(),
            case.samples(),
            on_step=on_step,
            **self._options,
        )
        self.times.append(times)
        self.keyframes.append(keyframes)

    def speed(self) -> dict[str, float]:
        """Speed of whole calls: condition, denoise, decode; empty where the cases were too short."""
        return speed(self.times, self._engine.chunk_frames, self.warmup_frames, self._warmup_calls)


def reenact(
    engine: BaseEngine,
    portrait: ImageArray,
    samples: Iterator[Sample],
    *,
    seed: int = 0,
    keyframe_threshold: float = KeyframeConfig.threshold,
    steps: int | None = None,
    controls: Controls = PLAIN,
    on_step: Callable[[StreamState, float], None] | None = None,
) -> Outputs:
    """Each driving frame with the engine's image of it; the last window is padded with its last frame.

    Args:
        portrait: square, framed.
        seed, keyframe_threshold, steps, controls, on_step: as for ``Engine.stream``.
    """
    in_flight = deque[Sample]()

    def windows() -> Iterator[Window]:
        for chunk in _chunks(samples, engine.chunk_frames):
            in_flight.extend(chunk)
            cut = max((i for i, sample in enumerate(chunk) if sample.cut), default=None)
            drivers = np.stack([sample.driver for sample in chunk])
            padding = np.repeat(drivers[-1:], engine.chunk_frames - len(chunk), axis=0)
            yield Window(np.concatenate([drivers, padding]), cut)

    for frames in engine.stream(
        portrait,
        windows(),
        seed=seed,
        keyframe_threshold=keyframe_threshold,
        steps=steps,
        controls=controls,
        on_step=on_step,
    ):
        for frame in frames.numpy()[: len(in_flight)]:  # the padding's frames are left over
            yield in_flight.popleft(), frame


def _chunks(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def speed(cases: list[CallTimes], chunk_frames: int, warmup_frames: int, warmup_calls: int) -> dict[str, float]:
    """Frames per second, chunk latency and motion-to-photon latency over cases, without their warm-up calls."""
    lag = warmup_frames // chunk_frames  # calls between a chunk's arrival and its departure
    frames, seconds = 0, 0.0
    chunk_ms: list[float] = []
    photon_ms: list[float] = []
    for case in cases:
        entered, left = case.entered_s[warmup_calls:], case.left_s[warmup_calls:]
        if len(left) < 2:
            continue
        frames += chunk_frames * len(left)
        seconds += left[-1] - entered[0]
        chunk_ms.append(inter_chunk_latency_ms(left))
        photon_ms.extend(motion_to_photon_ms(entered[: max(len(left) - lag, 0)], left[lag:]))
    if not frames:
        return {}
    found = {"fps": fps(frames, seconds), "chunk_ms": float(np.mean(chunk_ms))}
    if photon_ms:
        found["photon_ms"], found["photon_p95_ms"] = percentiles(photon_ms, (50, 95))
    return found


# --- videos of other methods --------------------------------------------------------------------------------


class VideoMethod:
    """Folder of videos made by any method: one per case, named after it, one frame per driving frame."""

    def __init__(self, name: str, folder: Path, size_px: int) -> None:
        """
        Raises:
            InputError: no such folder.
        """
        self.name, self._folder, self._size_px = name, folder, size_px
        self._videos, self.skipped = find_videos(folder)
        self.notes: list[str] = []

    def covers(self, case: Case) -> bool:
        """Tell whether there is a video of the case's name."""
        return case.name in self._videos

    def reenact(self, case: Case) -> Outputs:
        """See ``Method``. A video of another length is compared as far as both go.

        Raises:
            InputError: the video cannot be read or is not square.
        """
        path = self._videos[case.name]
        with open_video(path) as video:
            frames = iter(video)
            compared = 0
            for sample in case.samples():
                frame = next(frames, None)
                if frame is None:
                    self.notes.append(
                        f"{path}: has {compared} frames, fewer than the driving video; compared as far as it goes"
                    )
                    return
                compared += 1
                yield sample, self._to_square(path, frame.image)
            if next(frames, None) is not None:
                self.notes.append(f"{path}: has more than the {compared} frames compared; the rest is left out")
            self.notes.extend(video.warnings)

    def speed(self) -> dict[str, float]:
        """Empty: a video does not tell how fast it was made."""
        return {}

    def _to_square(self, path: Path, image: ImageArray) -> ImageArray:
        try:
            square = whole_square(image.shape, FramingConfig())
        except InputError:
            height, width = image.shape[:2]
            raise InputError(f"{path}: is {width}x{height}, not square: crop it as the method's output was") from None
        return crop_and_resize(image, square, self._size_px)


# --- baselines ----------------------------------------------------------------------------------------------


class Baseline:
    """The portrait shown all the time, or the ground truth itself: lower and upper bound of the scores."""

    def __init__(self, name: str) -> None:
        """
        Args:
            name: ``COPY`` or ``TRUTH``.
        """
        self.name = name

    def covers(self, case: Case) -> bool:
        """Tell whether there is ground truth to compare with."""
        return bool(case.truth_id)

    def reenact(self, case: Case) -> Outputs:
        """See ``Method``."""
        portrait = case.portrait()
        for sample in case.samples():
            yield sample, sample.truth if self.name == TRUTH and sample.truth is not None else portrait

    def speed(self) -> dict[str, float]:
        """Empty."""
        return {}
