"""Interface of every engine, and the one loop over a whole performance.

``Engine`` runs the diffusion networks; ``FaceEngine`` moves a photograph by the geometry of its face. Videos, live
sessions and evaluation take either.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from personalive.config import KeyframeConfig, MemoryPreset, ModelConfig
from personalive.engine.controls import Controls, check_steps
from personalive.engine.state import Motion, Window
from personalive.errors import InputError

PLAIN = Controls()  # the method as it is


class BaseEngine(ABC):
    """A model and what runs it. Knows nothing of any stream: states go in and come out as values.

    Attributes:
        config: of the model.
        memory: preset that decides about offloading and decoding.
        name: which weights these are, for reports.
        folder: where they came from; a face detector may lie beside them.
        device, dtype: of the networks.
        live_steps: denoising steps of live streams that ask for none; None: all.
        filters_motion: True where a stream's own state takes the trembling out of its driver.
    """

    config: ModelConfig
    memory: MemoryPreset
    name: str
    folder: Path | None
    device: torch.device
    dtype: torch.dtype
    live_steps: int | None = None
    filters_motion: bool = False

    @property
    def image_size(self) -> int:
        """Side in pixels of the frames this model makes."""
        return self.config.image_size_px

    @property
    def chunk_frames(self) -> int:
        """Driving frames per step, and frames per result."""
        return self.config.chunk_frames

    @property
    @abstractmethod
    def max_steps(self) -> int:
        """Denoising steps of a stream that asks for no fewer; 0 where there is no denoiser."""

    @property
    def warmup_frames(self) -> int:
        """Frames of ease-in that leave before the first driving frame does, with all of the model's steps."""
        return max(self.max_steps - 1, 0) * self.chunk_frames

    @property
    @abstractmethod
    def motion_networks(self) -> Sequence[nn.Module]:
        """Networks that read a driver's motion: motion files fit models in which these are equal."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, str]:
        """Runtime of the model, for reports: ``dtype``, ``backend``, ``vram`` and ``decoder``."""

    @abstractmethod
    def check(self, controls: Controls) -> object:
        """Prepare what the controls need.

        Raises:
            InputError: this model cannot obey one of them.
        """

    def check_steps(self, steps: int | None) -> int:
        """Number of denoising steps of a stream that asks for ``steps``; None asks for the model's own.

        Raises:
            InputError: more than the model has, or any where it has none.
        """
        if steps is None:
            return self.max_steps
        check_steps(steps, self.max_steps)
        return steps

    @abstractmethod
    def start(
        self,
        portrait: np.ndarray,
        *,
        seed: int = 0,
        keyframe_threshold: float = KeyframeConfig.threshold,
        steps: int | None = None,
    ) -> Any:
        """Begin a stream with a square portrait (H, W, 3) uint8 RGB; returns its state.

        Args:
            seed, keyframe_threshold: of no effect where nothing is drawn and no frame becomes a reference.
            steps: denoising steps of this stream, see ``check_steps``.

        Raises:
            InputError: a portrait or steps that this model cannot use.
        """

    @abstractmethod
    def encode_motion(self, frames: np.ndarray) -> Motion:
        """Motion of square driving frames (F, H, W, 3) uint8 RGB, which ``step`` takes in their place."""

    def prepared(self, window: Window) -> Window:
        """The window after the part of ``step`` that another thread may do ahead; the same frames come of it."""
        return window

    @abstractmethod
    def step(
        self, state: Any, window: np.ndarray | Motion, *, cut: int | None = None, controls: Controls = PLAIN
    ) -> tuple[Any, Tensor]:
        """Take one chunk of driving frames in and give one chunk of finished frames (n, S, S, 3) uint8 out."""

    @abstractmethod
    def flush(self, state: Any) -> Iterator[Tensor]:
        """Chunks still in flight."""

    def notes(self, state: Any) -> list[str]:
        """Warnings about a stream's portrait, and about its driver as far as it was seen; one line each."""
        return []

    def warm_up(self, calls: int, clock: Callable[[], float], *, steps: int | None = None) -> list[float]:
        """Run a few calls of nothing, so that no stream with so many denoising steps meets the slow first ones.

        Args:
            steps: None: those of a live stream that asks for none.

        Returns:
            Seconds of all calls but the first.
        """
        grey = np.full((self.image_size, self.image_size, 3), 128, np.uint8)
        window, seconds = np.stack([grey] * self.chunk_frames), list[float]()
        state = self.start(grey, steps=steps or self.live_steps)
        for _ in range(calls):
            started = clock()
            state, _ = self.step(state, window)
            seconds.append(clock() - started)
        return seconds[1:]

    def stream(
        self,
        portrait: np.ndarray,
        windows: Iterable[Window | np.ndarray | Motion],
        *,
        seed: int = 0,
        keyframe_threshold: float = KeyframeConfig.threshold,
        steps: int | None = None,
        controls: Controls = PLAIN,
        on_step: Callable[[Any, float], None] | None = None,
    ) -> Iterator[Tensor]:
        """Run a whole performance: start, a step per window, and the chunks in flight; the ease-in is left out.

        Args:
            portrait, seed, keyframe_threshold, steps: as for ``start``.
            windows: drivers as for ``step``, or ``Window`` where shots may change; read as the stream goes.
            controls: for all windows.
            on_step: called after each step with the new state and the seconds that the step took.

        Returns:
            One chunk (4, S, S, 3) uint8 per window, in order.

        Raises:
            InputError: as ``start`` and ``step``.
        """
        state = self.start(portrait, seed=seed, keyframe_threshold=keyframe_threshold, steps=steps)
        return self.stream_from(state, windows, controls=controls, on_step=on_step)

    def stream_from(
        self,
        state: Any,
        windows: Iterable[Window | np.ndarray | Motion],
        *,
        controls: Controls = PLAIN,
        on_step: Callable[[Any, float], None] | None = None,
    ) -> Iterator[Tensor]:
        """``stream`` from a state on: of ``start``, or of an earlier step of the same performance.

        Args:
            state: not changed.
            windows: those that the state has not taken.
            controls, on_step: see ``stream``.
        """
        ease_in = state.warmup_frames // self.chunk_frames
        for given in windows:
            window = given if isinstance(given, Window) else Window(given)
            begun = time.perf_counter()
            state, frames = self.step(state, window.driver, cut=window.cut, controls=controls)
            if on_step is not None:
                on_step(state, time.perf_counter() - begun)
            if state.call > ease_in:
                yield frames
        for frames in islice(self.flush(state), max(ease_in - state.call, 0), None):
            yield frames

    def _check_window(self, window: np.ndarray | Motion, cut: int | None) -> None:
        """Refuse what is no window of this model.

        Raises:
            InputError: a window of the wrong shape or kind, or a cut outside it.
        """
        if isinstance(window, Motion):
            encoder = self.config.motion_encoder
            expected = (1, self.chunk_frames, encoder.tokens, encoder.token_width)
            if (found := tuple(window.tokens.shape)) != expected:
                raise InputError(f"motion with tokens {found}: this model needs {expected}, of its own or its kind")
        else:
            check_square(window, (self.chunk_frames, 3), "window")
        if cut is not None and not 0 <= cut < self.chunk_frames:
            raise InputError(f"cut {cut}: give the number of a frame of the window, 0 to {self.chunk_frames - 1}")


def check_square(images: np.ndarray, ends: tuple[int, ...], name: str) -> None:
    """Refuse what are no square uint8 images; ``ends`` is (3,) for one image or (frames, 3) for several.

    Raises:
        InputError: with both shapes.
    """
    expected = ("S", "S", 3) if len(ends) == 1 else (ends[0], "S", "S", 3)
    fine = (
        isinstance(images, np.ndarray)
        and images.dtype == np.uint8
        and images.ndim == len(expected)
        and images.shape[-1] == 3
        and images.shape[-2] == images.shape[-3] > 0
        and images.shape[:-3] == ends[:-1]
    )
    if not fine:
        found = f"{getattr(images, 'dtype', type(images).__name__)} {getattr(images, 'shape', '')}".strip()
        shape = f"({', '.join(map(str, expected))})"
        raise InputError(f"{name} must be uint8 RGB of shape {shape}, found {found}: frame it first")
