"""A whole folder: what is left to do, workers, progress, index and report."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from personalive.config import ModelConfig
from personalive.errors import DeviceError, InputError
from personalive.media.paths import alone_in
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.folder import (
    Settings,
    Video,
    all_records,
    find_videos,
    forget,
    open_set,
    read_record,
    remove_temporary,
    write_index,
)
from personalive.training.data.prepare.report import Report, write_report
from personalive.training.data.prepare.video import prepare_video
from personalive.training.data.signals import sigint_later
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector, find_detector

_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of the work."""

    videos: int  # finished, earlier runs included
    total: int
    share: float  # of the bytes of all videos
    frames: int  # of this run
    fps: float  # frames per second of work
    left_s: float | None


def prepare(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size_px: int = PrepareConfig.size_px,
    framing_scale: float = ModelConfig.framing_scale,
    min_clip_s: float = PrepareConfig.min_clip_s,
    workers: int | None = None,
    detector_folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Turn the videos below ``videos`` into a training set at ``out``.

    Videos that are done already are not done again, so the same command resumes; what is written is the same
    however often it was interrupted and whatever the number of workers.

    Args:
        size_px: side of the framed images, even.
        framing_scale: side of the square in sides of the face, as in ``ModelConfig.framing_scale``.
        min_clip_s: shorter clips are dropped.
        workers: processes, one video each; one per core by default.
        detector_folder: where YuNet's file may be; without it faces are found by the bundled cascades.
        progress: called a few times per second.

    Raises:
        InputError: no videos, a number out of range, or nothing fit to keep.
        OutputError: the set cannot be written there.
        CheckpointError: a detector file is there but damaged.
    """
    source, target = Path(videos), Path(out)
    _check_numbers(size_px, framing_scale, min_clip_s, workers)
    detector = find_detector(detector_folder, FramingConfig())
    config = PrepareConfig(size_px=size_px, min_clip_s=min_clip_s)
    settings = Settings(
        size_px=size_px, fps=config.fps, framing_scale=framing_scale, min_clip_s=min_clip_s, detector=detector.name
    )
    found, others = find_videos(source, config)
    open_set(target, source, settings)
    with alone_in(target):
        job = _Job(target, settings, config, detector_folder)
        try:
            _run(job, found, workers, detector, progress or (lambda _: None))
        except BaseException:
            remove_temporary(target)
            raise
        records = all_records(target)
        write_index(target, settings, records)
        report = write_report(target, settings, records, others)
    if not report.clips:
        raise InputError(f"{target}: not one clip could be kept ({report.told_drops()}); see {target / 'report.md'}")
    return report


def _check_numbers(size_px: int, framing_scale: float, min_clip_s: float, workers: int | None) -> None:
    low, high = PrepareConfig.min_size_px, PrepareConfig.max_size_px
    if size_px % 2 or not low <= size_px <= high:
        raise InputError(f"size {size_px}: give an even number of pixels from {low} to {high}")
    if not 1 <= framing_scale <= 4:
        raise InputError(f"framing scale {framing_scale}: give a number from 1 to 4")
    if not 0 < min_clip_s <= PrepareConfig.max_clip_s:
        raise InputError(f"least length {min_clip_s} s: give a number above 0, up to {PrepareConfig.max_clip_s:g}")
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers}: give a number from 1 up")


@dataclass(frozen=True)
class _Job:
    """Settings of every worker."""

    out: Path
    settings: Settings
    config: PrepareConfig
    detector_folder: Path | None

    def do(self, video: Video, detector: FaceDetector, advance: Callable[[float, int], None]) -> None:
        forget(self.out, video.key)
        prepare_video(video, self.out, self.settings, detector, advance, self.config)


def _run(
    job: _Job,
    found: list[Video],
    workers: int | None,
    detector: FaceDetector,
    progress: Callable[[Progress], None],
) -> None:
    done = {v.key for v in found if (read_record(job.out, v.key) or {}).get("fingerprint") == v.fingerprint}
    todo = [video for video in found if video.key not in done]
    meter = _Meter(found, todo, progress)
    count = min(workers or os.cpu_count() or 1, len(todo))
    if count <= 1:
        _in_this_process(job, todo, detector, meter)
    else:
        _in_workers(job, todo, count, meter)


def _in_this_process(job: _Job, todo: list[Video], detector: FaceDetector, meter: _Meter) -> None:
    with _one_thread():
        for index, video in enumerate(todo):

            def advance(share: float, frames: int, index: int = index) -> None:
                meter.set(index, share, frames)
                meter.tell()

            job.do(video, detector, advance)
            meter.finish(index)


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV on one thread: results must not depend on their number, and workers are parallel already."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


# --- workers ------------------------------------------------------------------------------------------------


def _in_workers(job: _Job, todo: list[Video], count: int, meter: _Meter) -> None:
    context = multiprocessing.get_context("spawn")
    shares, frames = context.Array("d", len(todo), lock=False), context.Array("q", len(todo), lock=False)
    others = set(multiprocessing.active_children())
    with ExitStack() as stack:
        with sigint_later():
            pool = stack.enter_context(context.Pool(count, _begin_worker, (job, shares, frames, os.getpid())))
        workers = set(multiprocessing.active_children()) - others
        finished = pool.imap_unordered(_work, list(enumerate(todo)))
        left = len(todo)
        while left:
            try:
                meter.finish(finished.next(timeout=_POLL_S))
                left -= 1
            except multiprocessing.TimeoutError:
                _check_alive(workers)
                for index in range(len(todo)):
                    meter.set(index, shares[index], frames[index])
                meter.tell()


def _check_alive(workers: set[Any]) -> None:
    """A pool would wait for ever for the work of a process that was ended from outside."""
    if not all(worker.is_alive() for worker in workers):
        raise DeviceError(
            "a worker process was ended from outside, perhaps because memory ran out: repeat the command with "
            "fewer --workers to go on"
        )


_state: dict[str, Any] = {}  # of a worker process: its job, its detector, the shared arrays


def _begin_worker(job: _Job, shares: Any, frames: Any, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)
    _state.update(job=job, shares=shares, frames=frames, parent=parent)
    _state["detector"] = find_detector(job.detector_folder, FramingConfig())


def _work(task: tuple[int, Video]) -> int:
    index, video = task

    def advance(share: float, frames: int) -> None:
        _state["shares"][index], _state["frames"][index] = share, frames
        if os.name == "posix" and os.getppid() != _state["parent"]:
            raise SystemExit(1)  # the command was killed: nobody waits for this

    _state["job"].do(video, _state["detector"], advance)
    return index


# --- progress -----------------------------------------------------------------------------------------------


class _Meter:
    """Turns shares of videos into one progress."""

    def __init__(self, found: list[Video], todo: list[Video], progress: Callable[[Progress], None]) -> None:
        self._progress = progress
        self._sizes = [max(video.size_bytes, 1) for video in todo]
        self._before = sum(max(video.size_bytes, 1) for video in found) - sum(self._sizes)
        self._videos, self._total = len(found) - len(todo), len(found)
        self._shares, self._frames = [0.0] * len(todo), [0] * len(todo)
        self._done = [False] * len(todo)
        self._begun = self._told = time.monotonic()

    def set(self, index: int, share: float, frames: int) -> None:
        if not self._done[index]:
            self._shares[index], self._frames[index] = share, max(frames, self._frames[index])

    def finish(self, index: int) -> None:
        self._shares[index], self._done[index] = 1.0, True
        self._videos += 1
        self._told = 0.0
        self.tell()

    def tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _POLL_S:
            return
        self._told, seconds = now, max(now - self._begun, 1e-9)
        bytes_ = sum(share * size for share, size in zip(self._shares, self._sizes, strict=True))
        left = (sum(self._sizes) - bytes_) * seconds / bytes_ if bytes_ else None
        self._progress(
            Progress(
                videos=self._videos,
                total=self._total,
                share=(self._before + bytes_) / (self._before + sum(self._sizes)),
                frames=sum(self._frames),
                fps=sum(self._frames) / seconds,
                left_s=left,
            )
        )
