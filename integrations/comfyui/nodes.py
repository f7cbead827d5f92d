"""Nodes: load a model, read motion, animate images, and one frame at a time for live previews.

Images are ComfyUI's: tensors (B, H, W, 3) float, 0..1, RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from personalive import PersonaLiveError, Progress, load_engine
from personalive.engine.controls import Controls
from personalive.media.reader import Frame
from personalive.offline.driving import MotionDriving
from personalive.offline.motion_file import fit_motion_clip, load_motion_file
from personalive.offline.record import RecordOptions, read_motion
from personalive.vision.config import FramingConfig
from personalive.vision.faces import find_detector
from personalive.vision.framing import DrivingFramer, frame_portrait
from personalive.vision.visible_mark import draw_visible_mark

try:
    from comfy.model_management import throw_exception_if_processing_interrupted  # pyright: ignore
    from comfy.utils import ProgressBar  # pyright: ignore
except ImportError:  # outside ComfyUI: nothing to show, and nobody to interrupt
    ProgressBar = None

    def throw_exception_if_processing_interrupted() -> None:
        """Do nothing."""


ENGINE, MOTION = "PERSONALIVE_ENGINE", "PERSONALIVE_MOTION"
_FRAMING = (["auto", "center", "none"],)
_FACTOR = {"min": 0.0, "max": 2.0, "step": 0.05}


class _Node:
    CATEGORY = "PersonaLive"
    FUNCTION = "run"


class LoadModel(_Node):
    """Load a model, once for as many nodes as use it."""

    RETURN_TYPES, RETURN_NAMES = (ENGINE,), ("engine",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name, as all in capitals here)
        """Weights as ``--weights`` takes them, and a device."""
        return {
            "required": {
                "weights": ("STRING", {"default": "auto", "tooltip": "auto, photo, tiny or a weights folder"}),
                "device": (["auto", "cpu", "cuda", "mps"],),
            }
        }

    def run(self, weights: str, device: str) -> tuple[Any]:
        """Return the engine."""
        return (load_engine(weights, device=device, progress=_bar()),)


class MotionFromImages(_Node):
    """Read the motion of a driver's images."""

    RETURN_TYPES, RETURN_NAMES = (MOTION,), ("motion",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Images of one face, and their rate."""
        return {
            "required": {
                "engine": (ENGINE,),
                "images": ("IMAGE",),
                "fps": ("FLOAT", {"default": 25.0, "min": 1.0, "max": 120.0, "step": 0.01}),
                "framing": _FRAMING,
            }
        }

    def run(self, engine: Any, images: torch.Tensor, fps: float, framing: Any) -> tuple[Any]:
        """Return the motion."""
        show = _bar()
        reader: Any = _Clip(images, Fraction(fps).limit_denominator(1001))
        options = RecordOptions(framing=framing, center_fallback=engine.name == "tiny")
        motion, _ = read_motion(reader, engine, options, "the images", progress=lambda now: _tell(show, now))
        return (motion,)


class MotionFromFile(_Node):
    """Load a motion file of ``personalive motion record``."""

    RETURN_TYPES, RETURN_NAMES = (MOTION,), ("motion",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The engine that it must fit, and the file's path."""
        return {"required": {"engine": (ENGINE,), "path": ("STRING", {"default": "take.safetensors"})}}

    def run(self, engine: Any, path: str) -> tuple[Any]:
        """Return the motion."""
        return (fit_motion_clip(load_motion_file(path), engine, path),)


class AnimateImages(_Node):
    """Animate a portrait: one image per frame of the motion."""

    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "FLOAT"), ("images", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Portrait, motion, seed, and the controls that are changed most."""
        return {
            "required": {
                "engine": (ENGINE,),
                "portrait": ("IMAGE",),
                "motion": (MOTION,),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1}),
                "framing": _FRAMING,
                "expression": ("FLOAT", {"default": 1.0, **_FACTOR}),
                "head_motion": ("FLOAT", {"default": 1.0, **_FACTOR}),
                "visible_mark": ("BOOLEAN", {"default": False}),
            }
        }

    def run(
        self,
        engine: Any,
        portrait: torch.Tensor,
        motion: Any,
        seed: int,
        framing: Any,
        expression: float,
        head_motion: float,
        visible_mark: bool,
    ) -> tuple[torch.Tensor, float]:
        """Return the images (F, S, S, 3) and their rate."""
        controls = Controls(expression=expression, head_motion=head_motion)
        engine.check(controls)
        fit = fit_motion_clip(motion, engine, "the motion")
        windows = (window.to_engine() for window in MotionDriving(fit, engine.chunk_frames).windows())
        show, made = _bar(), []
        for chunk in engine.stream(_portrait(engine, portrait, framing), windows, seed=seed, controls=controls):
            made += list(chunk.numpy())
            show(min(len(made), len(fit)), len(fit))
        return _tensor(made[: len(fit)], visible_mark), float(fit.fps)


class LivePreview(_Node):
    """Take one driving image per execution, such as a webcam's, and give the newest frame of a stream that goes on.

    Diffusion models give the ease-in from the portrait first: see docs/comfyui.md.
    """

    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("image",)

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._state: Any = None
        self._framer: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Portrait and driving image; ``restart`` begins a new stream."""
        return {
            "required": {
                "engine": (ENGINE,),
                "portrait": ("IMAGE",),
                "image": ("IMAGE",),
                "framing": _FRAMING,
                "restart": ("BOOLEAN", {"default": False}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802
        """Run at every execution: the stream has gone on."""
        return float("nan")

    def run(
        self, engine: Any, portrait: torch.Tensor, image: torch.Tensor, framing: Any, restart: bool
    ) -> tuple[torch.Tensor]:
        """Return the newest frame (1, S, S, 3)."""
        throw_exception_if_processing_interrupted()
        key = (engine, framing, _images(portrait)[0].tobytes())
        if restart or key != self._key:
            self._state = engine.start(_portrait(engine, portrait, framing))
            self._framer = DrivingFramer(
                find_detector(engine.folder) if framing == "auto" else None,
                framing,
                "hold",
                engine.image_size,
                live=True,
                allow_center_fallback=engine.name == "tiny",
                config=FramingConfig(driving_scale=engine.config.framing_scale),
            )
            self._key = key
        driver = self._framer.push(_images(image)[-1])[-1].image
        self._state, frames = engine.step(self._state, np.stack([driver] * engine.chunk_frames))
        return (_tensor([frames.numpy()[-1]]),)


NODE_CLASS_MAPPINGS = {
    f"PersonaLive{kind.__name__}": kind
    for kind in (LoadModel, MotionFromImages, MotionFromFile, AnimateImages, LivePreview)
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PersonaLiveLoadModel": "PersonaLive: load model",
    "PersonaLiveMotionFromImages": "PersonaLive: motion from images",
    "PersonaLiveMotionFromFile": "PersonaLive: motion from file",
    "PersonaLiveAnimateImages": "PersonaLive: animate images",
    "PersonaLiveLivePreview": "PersonaLive: live preview",
}


class _Clip:
    """A batch of images as the reader of a clip."""

    audio, warnings = None, ()

    def __init__(self, images: torch.Tensor, fps: Fraction) -> None:
        self._images, self._fps = _images(images), fps
        self.info = SimpleNamespace(time_base=1 / fps, average_fps=fps, estimated_frames=len(self._images))

    def __iter__(self) -> Iterator[Frame]:
        for number, image in enumerate(self._images):
            yield Frame(image, number / self._fps, number, 1 / self._fps)


def _portrait(engine: Any, portrait: torch.Tensor, framing: Any) -> np.ndarray:
    config = FramingConfig(portrait_scale=engine.config.framing_scale)
    detector = find_detector(engine.folder) if framing == "auto" else None
    fallback = engine.name == "tiny"
    return frame_portrait(
        _images(portrait)[0], detector, framing, allow_center_fallback=fallback, config=config
    ).image


def _images(images: torch.Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8 of ComfyUI's float images; a fourth channel is left out."""
    if images.ndim != 4 or images.shape[-1] < 3 or not len(images):
        raise PersonaLiveError(f"images of shape {tuple(images.shape)}: give (B, H, W, 3), at least one")
    return (images[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _tensor(images: list[np.ndarray], visible_mark: bool = False) -> torch.Tensor:
    marked = [draw_visible_mark(image) if visible_mark else image for image in images]
    return torch.from_numpy(np.stack(marked)).float() / 255


def _tell(show: Callable[[float, float], None], now: Progress) -> None:
    show(now.done, now.total or now.done)


def _bar() -> Callable[[float, float], None]:
    """A function that shows (done, total), and ends the run where the user has interrupted it."""
    bar: Any = None

    def show(done: float, total: float) -> None:
        nonlocal bar
        throw_exception_if_processing_interrupted()
        if ProgressBar is not None:
            bar = bar or ProgressBar(int(total))
            bar.update_absolute(int(done), int(total))

    return show
