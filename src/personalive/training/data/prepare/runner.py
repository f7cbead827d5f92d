"""A whole folder: what is left to do, workers, progress, index and report."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from personalive.errors import DeviceError, InputError
from personalive.media.paths import alone_in
from personalive.progress import Progress, clock
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.folder import (
    Video,
    all_records,
    find_videos,
    open_set,
    read_record,
    remove_temporary,
    write_index,
)
from personalive.training.data.prepare.report import Report, write_report
from personalive.training.data.prepare.video import prepare_video
from personalive.training.data.signals import begin_worker, sigint_later
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector, find_detector

_POLL_S = 0.2


def prepare(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size_px: int = PrepareConfig.size_px,
    framing_scale: float = PrepareConfig.framing_scale,
    min_clip_s: float = PrepareConfig.min_clip_s,
    workers: int | None = None,
    detector_folder: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    elsewhere: Callable[[Job, Meter], None] | None = None,
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
        progress: called a few times per second with the share of the bytes of all videos.
        elsewhere: does the job on other machines, in the place of the processes here.

    Raises:
        InputError: no videos, a number out of range, or nothing fit to keep.
        OutputError: the set cannot be written there.
        CheckpointError: a detector file is there but damaged.
    """
    source, target = Path(videos), Path(out)
    config = PrepareConfig(size_px=size_px, framing_scale=framing_scale, min_clip_s=min_clip_s)
    _check_numbers(config, workers)
    detector = find_detector(detector_folder, FramingConfig())
    config = replace(config, detector=detector.name)
    found, others = find_videos(source, config)
    open_set(target, source, config)
    with alone_in(target):
        done = {v.key for v in found if (read_record(target, v.key) or {}).get("fingerprint") == v.fingerprint}
        todo = [video for video in found if video.key not in done]
        job = Job(todo, target, config, detector_folder)
        meter = Meter(found, job, progress)
        count = min(workers or os.cpu_count() or 1, len(todo))
        try:
            if elsewhere is not None and todo:
                elsewhere(job, meter)
            elif count > 1:
                _in_workers(job, count, meter)
            else:
                _in_this_process(job, detector, meter)
        except BaseException:
            remove_temporary(target)
            raise
        records = all_records(target)
        write_index(target, config, records)
        report = write_report(target, config, records, others)
    if not report.clips:
        raise InputError(f"{target}: not one clip could be kept ({report.told_drops()}); see {target / 'report.md'}")
    return report


def _check_numbers(config: PrepareConfig, workers: int | None) -> None:
    low, high = config.min_size_px, config.max_size_px
    if config.size_px % 2 or not low <= config.size_px <= high:
        raise InputError(f"size {config.size_px}: give an even number of pixels from {low} to {high}")
    if not 1 <= config.framing_scale <= 4:
        raise InputError(f"framing scale {config.framing_scale}: give a number from 1 to 4")
    if not 0 < config.min_clip_s <= config.max_clip_s:
        raise InputError(f"least length {config.min_clip_s} s: give a number above 0, up to {config.max_clip_s:g}")
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers}: give a number from 1 up")


class Job:
    """Videos to do, with the settings of every worker, and how far each is, in memory that all share."""

    def __init__(self, todo: list[Video], out: Path, config: PrepareConfig, detector_folder: Path | None) -> None:
        self.todo, self.out, self.config, self.detector_folder = todo, out, config, detector_folder
        # share done of each video, and its frames at the set's rate
        self.shares, self.frames = (multiprocessing.RawArray(kind, len(todo) or 1) for kind in "dq")
        self.parent = os.getpid()  # process that waits

    def do(self, index: int, detector: FaceDetector, advanced: Callable[[], None]) -> None:
        def advance(share: float, frames: int) -> None:
            self.shares[index], self.frames[index] = share, frames
            advanced()

        prepare_video(self.todo[index], self.out, detector, advance, self.config)
        self.shares[index] = 1.0


def _in_this_process(job: Job, detector: FaceDetector, meter: Meter) -> None:
    """With OpenCV on one thread, as in workers: results must not depend on their number."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for index in range(len(job.todo)):
            job.do(index, detector, meter.tell)
            meter.finish()
    finally:
        cv2.setNumThreads(before)


# --- workers ------------------------------------------------------------------------------------------------


def _in_workers(job: Job, count: int, meter: Meter) -> None:
    others = set(multiprocessing.active_children())
    with ExitStack() as stack:
        with sigint_later():
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(count, _begin_worker, (job,)))
        workers = set(multiprocessing.active_children()) - others
        finished = pool.imap_unordered(_work, range(len(job.todo)))
        while meter.videos < meter.total:
            try:
                finished.next(timeout=_POLL_S)
                meter.finish()
            except multiprocessing.TimeoutError:
                if not all(worker.is_alive() for worker in workers):  # the pool would wait for its work for ever
                    raise DeviceError(
                        "a worker process was ended from outside, perhaps because memory ran out: repeat the "
                        "command with fewer --workers to go on"
                    ) from None
                meter.tell()


_state: dict[str, Any] = {}  # of a worker process: its job and its detector


def _begin_worker(job: Job) -> None:
    begin_worker()
    _state.update(job=job, detector=find_detector(job.detector_folder, FramingConfig()))


def _work(index: int) -> None:
    job = _state["job"]

    def end_with_parent() -> None:
        if os.name == "posix" and os.getppid() != job.parent:
            raise SystemExit(1)  # the command was killed: nobody waits for this

    job.do(index, _state["detector"], end_with_parent)


# --- progress -----------------------------------------------------------------------------------------------


class Meter:
    """Turns shares of videos into one progress."""

    def __init__(self, found: list[Video], job: Job, progress: Callable[[Progress], None]) -> None:
        self._job, self._progress = job, progress
        self._sizes = [max(video.size_bytes, 1) for video in job.todo]
        self._bytes = sum(max(video.size_bytes, 1) for video in found)
        self.videos, self.total = len(found) - len(job.todo), len(found)  # finished, earlier runs included
        self._begun = self._shown = time.monotonic()

    def finish(self) -> None:
        """Count a finished video."""
        self.videos += 1
        self._shown = 0.0
        self.tell()

    def tell(self) -> None:
        """Report, unless that was a moment ago."""
        now = time.monotonic()
        if now - self._shown < _POLL_S:
            return
        self._shown, seconds, frames = now, max(now - self._begun, 1e-9), sum(self._job.frames)
        left = sum((1 - share) * size for share, size in zip(self._job.shares, self._sizes, strict=True))
        made = sum(self._sizes) - left
        note = f"{self.videos} of {self.total} videos, {frames} frames, {frames / seconds:.0f} per second"
        note += f", {clock(left * seconds / made)} left" if made else ""
        self._progress(Progress((self._bytes - left) / self._bytes, 1.0, unit="", note=note))
