"""Record the motion of a clip in a motion file, which replays as the clip would have driven."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from personalive.checkpoints.networks import LoadProgress
from personalive.engine.base import BaseEngine
from personalive.engine.state import Motion
from personalive.errors import InputError
from personalive.media.isolated import open_isolated_video
from personalive.media.paths import check_output
from personalive.media.reader import VideoReader
from personalive.offline.beginning import find_start
from personalive.offline.config import MotionFileConfig
from personalive.offline.driving import ClipDriving, DrivingFrame
from personalive.offline.motion_file import SUFFIX, MotionClip, engine_motion_digest, is_motion_file, save_motion_file
from personalive.progress import Meter, Progress
from personalive.runtime.load import AUTO, load_engine
from personalive.runtime.memory import engine_oom_errors
from personalive.runtime.registry import PrepareProgress
from personalive.vision.config import FramingConfig
from personalive.vision.faces import find_detector
from personalive.vision.framing import DrivingFramer, FramingMode, NoFace


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """Everything that decides a motion file, beside the clip and the model; all as in ``AnimateOptions``.

    Raises:
        InputError: ``no_face`` asks for a portrait's own pose: a recording has none.
    """

    framing: FramingMode = "auto"
    no_face: NoFace = "hold"
    center_fallback: bool = False
    start_s: float | Literal["auto"] | None = None
    end_s: float | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.no_face == "neutral":
            raise InputError("no face 'neutral': a recording has no portrait to return to: give hold or error")


@dataclass(frozen=True, kw_only=True)
class RecordReport:
    """Summary of a recording: the motion, the model, the speed."""

    output: str
    motion: MotionClip
    seconds: float  # of work, model loading not counted
    weights: str
    device: str
    dtype: str
    backend: str
    warnings: list[str] = field(default_factory=list)


def record(
    driving: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: RecordOptions | None = None,
    *,
    weights: str | os.PathLike[str] = AUTO,
    engine: BaseEngine | None = None,
    device: str = AUTO,
    dtype: str = AUTO,
    vram: str | int = AUTO,
    backend: str = AUTO,
    progress: Callable[[Progress], None] | None = None,
    loading: LoadProgress | None = None,
    preparing: PrepareProgress | None = None,
) -> RecordReport:
    """Keep the motion of a clip in a motion file.

    Replayed with the same model it gives the frames that the clip would have given.

    Args:
        driving: any common video, GIF or still.
        output: a .safetensors file that may exist already (it is replaced) but may not be the clip.
        options: which part of the clip, and how it is framed.
        weights, device, dtype, vram, backend, engine, progress, loading, preparing: as for ``animate``.

    Raises:
        PersonaLiveError: with one line that says what is wrong and what to do.
    """
    chosen = options or RecordOptions()
    target = check_output(output, [driving], suffix=SUFFIX)
    if is_motion_file(driving):
        raise InputError(f"{driving}: is a motion file or named like one: give a clip, or copy the file")
    start_s, notes = None if isinstance(chosen.start_s, str) else chosen.start_s, list[str]()
    with ExitStack() as files:
        reader = files.enter_context(open_isolated_video(driving, start_s, chosen.end_s))
        engine = engine or load_engine(
            weights,
            device=device,
            dtype=dtype,
            vram=vram,
            backend=backend,
            frames=reader.info.estimated_frames,
            progress=loading,
            preparing=preparing,
        )
        started_s = time.monotonic()
        with engine_oom_errors(engine):
            if chosen.start_s == "auto":
                start_s, _, note = find_start(_framed(reader, engine, chosen), engine)
                reader, notes = files.enter_context(open_isolated_video(driving, start_s, chosen.end_s)), [note]
        motion, warnings = read_motion(reader, engine, chosen, str(driving), progress)
        seconds = time.monotonic() - started_s
    save_motion_file(target, motion, [driving])
    return RecordReport(
        output=str(target),
        motion=motion,
        seconds=round(seconds, 2),
        weights=engine.name,
        device=str(engine.device),
        dtype=engine.facts["dtype"],
        backend=engine.facts["backend"],
        warnings=[*notes, *warnings],
    )


def read_motion(
    reader: VideoReader,
    engine: BaseEngine,
    options: RecordOptions,
    name: str,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[MotionClip, list[str]]:
    """Motion of an open clip, which errors call ``name``, and warnings of one line each.

    Raises:
        PersonaLiveError: as ``record``.
    """
    with engine_oom_errors(engine):
        clip = _framed(reader, engine, options)
        return _encode(clip, engine, name, Meter(clip.expected), progress), clip.warnings()


def _framed(reader: VideoReader, engine: BaseEngine, options: RecordOptions) -> ClipDriving:
    framer = DrivingFramer(
        find_detector(engine.folder) if options.framing == "auto" else None,
        options.framing,
        options.no_face,
        engine.image_size,
        allow_center_fallback=options.center_fallback,
        config=FramingConfig(driving_scale=engine.config.framing_scale),
    )
    return ClipDriving(reader, framer, engine.chunk_frames, mirror=options.mirror)


def _encode(
    clip: ClipDriving, engine: BaseEngine, name: str, meter: Meter, progress: Callable[[Progress], None] | None
) -> MotionClip:
    """Encode in the windows of a video, so that replaying gives that video bit for bit."""
    limit = MotionFileConfig().max_frames
    parts: list[Motion] = []
    frames: list[DrivingFrame] = []
    for window in clip.windows():
        assert isinstance(window.driver, np.ndarray)
        motion = engine.encode_motion(window.driver)[: len(window.frames)]
        parts.append(Motion(motion.tokens.float().cpu(), motion.poses.to("cpu")))
        frames += window.frames
        if len(frames) > limit:
            raise InputError(f"{name}: has more than {limit} frames: record a part of it with --start and --end")
        if progress is not None:
            progress(meter.at(len(frames)))
    last = frames[-1]
    return MotionClip(
        motion=Motion.cat(parts),
        times_s=np.array([float(frame.time.start) for frame in frames]),
        cuts=np.array([frame.cut for frame in frames]),
        reader=engine_motion_digest(engine),
        fps=clip.fps,
        duration_s=float(sum(last.time)),
        time_base=clip.time_base,
    )
