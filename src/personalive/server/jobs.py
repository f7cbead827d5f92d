"""Videos made beside the live sessions, one at a time: ``animate``, with each engine call queued on the worker."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from personalive.engine.base import BaseEngine
from personalive.engine.controls import Controls
from personalive.engine.state import Motion
from personalive.errors import DeviceError, InputError, PersonaLiveError
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.live.worker import Worker
from personalive.offline.animate import animate
from personalive.offline.options import AnimateOptions, AnimateReport
from personalive.progress import Progress
from personalive.server.config import ServerConfig
from personalive.server.uploads import renamed

_LOG = logging.getLogger(__name__)
JobState = Literal["open", "waiting", "running", "done", "failed", "cancelled"]
_CHECK_S = 1.0
SERVER_OPTIONS = ("contact_sheet", "center_fallback", "credentials")  # of ``AnimateOptions``, not for clients to set


class WorkerEngine(BaseEngine):
    """The worker's engine for another thread: every call runs on the worker, between chunks of the sessions."""

    def __init__(self, worker: Worker, engine: BaseEngine) -> None:
        self._worker, self._engine = worker, engine
        self.config, self.memory, self.name, self.folder = engine.config, engine.memory, engine.name, engine.folder
        self.device, self.dtype = engine.device, engine.dtype

    @property
    def max_steps(self) -> int:
        """Those of the worker's engine, as all that is read here."""
        return self._engine.max_steps

    @property
    def motion_networks(self) -> Sequence[nn.Module]:
        """See ``BaseEngine``."""
        return self._engine.motion_networks

    @property
    def facts(self) -> dict[str, str]:
        """See ``BaseEngine``."""
        return self._engine.facts

    def check(self, controls: Controls) -> object:
        """Run ``check`` on the worker."""
        return self._submit(lambda: self._engine.check(controls))

    def start(self, portrait: np.ndarray, **options: Any) -> Any:
        """Run ``start`` on the worker."""
        return self._submit(lambda: self._engine.start(portrait, **options))

    def encode_motion(self, frames: np.ndarray) -> Motion:
        """Run ``encode_motion`` on the worker."""
        return self._submit(lambda: self._engine.encode_motion(frames))

    def step(self, state: Any, window: np.ndarray | Motion, **options: Any) -> tuple[Any, Tensor]:
        """Run ``step`` on the worker."""
        return self._submit(lambda: self._engine.step(state, window, **options))

    def flush(self, state: Any) -> Iterator[Tensor]:
        """Run ``flush`` on the worker, one call per chunk."""
        chunks = self._engine.flush(state)
        while (chunk := self._submit(lambda: next(chunks, None))) is not None:
            yield chunk

    def _submit(self, work: Callable[[], Any]) -> Any:
        try:
            return self._worker.submit(work).result()
        except CancelledError:
            raise RefusedError("not_ready", "the server is shutting down, or its worker has failed") from None


@dataclass(eq=False)
class Job:
    """One video: its inputs, progress and result."""

    folder: Path
    created_s: float
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    key: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    options: dict[str, Any] = field(default_factory=dict)
    portrait: Path | None = None
    clip: Path | None = None
    state: JobState = "open"
    progress: Progress | None = None
    report: AnimateReport | None = None
    error: RefusedError | None = None
    ended_s: float | None = None
    cancelled: bool = False

    @property
    def video(self) -> Path:
        """Path of the result."""
        return self.folder / "video.mp4"

    def to_dict(self) -> dict[str, Any]:
        """Return the state as in docs/protocol.md."""
        progress = self.progress
        left_s = None
        if progress is not None and progress.total is not None and self.state == "running":
            left_s = round(max(progress.total - progress.frames, 0) / max(progress.fps, 1e-9), 1)
        return {
            "state": self.state,
            "portrait": self.portrait is not None,
            "clip": self.clip is not None,
            "frames": progress.frames if progress else 0,
            "total": progress.total if progress else None,
            "fps": round(progress.fps, 2) if progress else None,
            "left_s": left_s,
            "error": None if self.error is None else self.error.body()["error"],
            "warnings": self.report.warnings if self.report else [],
        }


class _CancelledJobError(Exception):
    """Ends ``animate`` from its progress callback."""


class JobQueue:
    """Queue of jobs, run one after another and removed when they expire. Event loop only."""

    def __init__(self, worker: Worker, folder: Path, config: ServerConfig, clock: Clock = time.monotonic) -> None:
        self._worker, self._folder, self._config, self._clock = worker, folder, config, clock
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def open(self, options: Mapping[str, Any]) -> Job:
        """Create a job, which takes its portrait and clip next.

        Raises:
            RefusedError: unusable options, or too many jobs.
        """
        _check_options(options)
        own = {"center_fallback": self._worker.center_fallback, "credentials": self._config.credentials}
        options = {"steps": self._config.steps, **options, **own}
        if sum(job.ended_s is None for job in self._jobs.values()) > self._config.waiting_jobs:
            raise RefusedError("server_full", "too many videos are waiting: try again later", retry_after_s=30.0)
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        job = Job(folder, self._clock(), options=options)
        self._jobs[job.id] = job
        return job

    def find(self, ident: str) -> Job:
        """Return the job with this id.

        Raises:
            RefusedError: there is none any more.
        """
        if ident not in self._jobs:
            raise RefusedError("not_found", "no such job: it has expired, or the address is wrong")
        return self._jobs[ident]

    def start(self, job: Job) -> None:
        """Queue a job whose portrait and clip are here.

        Raises:
            RefusedError: something is missing, or it has been started before.
        """
        check_open(job)
        if job.portrait is None or job.clip is None:
            missing = "portrait" if job.portrait is None else "clip"
            raise RefusedError("bad_request", f"no {missing} yet: send one first")
        job.state = "waiting"
        self._queue.put_nowait(job)

    def close(self, job: Job) -> None:
        """Cancel a job and remove its files."""
        job.cancelled = True
        self._jobs.pop(job.id, None)
        if job.state != "running":  # else ``run`` removes it
            _remove(job)

    def close_all(self) -> None:
        """Cancel all jobs."""
        for job in list(self._jobs.values()):
            self.close(job)

    async def run(self) -> None:
        """Run jobs until cancelled."""
        while True:
            job = await self._queue.get()
            if job.cancelled:
                continue
            job.state = "running"
            try:
                await asyncio.to_thread(self._animate, job)
            except asyncio.CancelledError:
                job.cancelled = True
                raise
            finally:
                job.ended_s = self._clock()
                if job.cancelled:
                    _remove(job)

    async def watch(self) -> None:
        """Remove expired jobs, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_S)
            now = self._clock()
            for job in list(self._jobs.values()):
                since = job.created_s if job.state == "open" else job.ended_s
                if since is not None and now - since > self._config.job_s:
                    self.close(job)

    def _animate(self, job: Job) -> None:
        """Make the job's video; runs on a thread of its own."""

        def on_progress(progress: Progress) -> None:
            job.progress = progress
            if job.cancelled:
                raise _CancelledJobError

        engine = self._worker.engine
        try:
            if engine is None:
                raise RefusedError("not_ready", self._worker.message or "the model is not loaded")
            assert job.portrait is not None
            assert job.clip is not None
            queued = WorkerEngine(self._worker, engine)
            job.report = animate(
                job.portrait, job.clip, job.video, engine=queued, progress=on_progress, **job.options
            )
            job.state = "done"
        except _CancelledJobError:
            job.state = "cancelled"
        except PersonaLiveError as error:
            text = str(error)
            for path, name in ((job.portrait, "the portrait"), (job.clip, "the clip"), (job.video, "the video")):
                text = text if path is None else renamed(text, path, name)
            kind = "internal" if isinstance(error, DeviceError) else "unusable_input"
            job.state, job.error = "failed", RefusedError(kind, text)
        except Exception as error:  # noqa: BLE001 (later jobs must still run)
            _LOG.exception("a job failed", exc_info=error)
            job.state, job.error = "failed", RefusedError("internal", "an unexpected fault of the server")


def check_open(job: Job) -> None:
    """Refuse changes of a job that has been started."""
    if job.state != "open":
        raise RefusedError("bad_request", f"the job is {job.state}: open another one")


def _remove(job: Job) -> None:
    shutil.rmtree(job.folder, ignore_errors=True)


def _check_options(options: Mapping[str, Any]) -> None:
    known = [name for name in asdict(AnimateOptions()) if name not in SERVER_OPTIONS]
    if unknown := [name for name in options if name not in known]:
        raise RefusedError("bad_request", f"unknown option {unknown[0]!r}: there are {', '.join(known)}")
    try:
        AnimateOptions(**options)
    except (InputError, TypeError) as error:
        raise RefusedError("bad_request", f"options: {error}") from None
