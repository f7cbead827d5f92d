"""Films made beside the live sessions: one at a time, by ``animate``, its calls in turn with theirs on the worker."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.engine.state import Motion, StreamState
from personalive.errors import DeviceError, InputError, PersonaLiveError
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.live.worker import Worker
from personalive.offline.animate import AnimateOptions, AnimateReport, animate
from personalive.progress import Progress
from personalive.server.config import ServerConfig

_LOG = logging.getLogger(__name__)
JobState = Literal["open", "waiting", "running", "done", "failed", "cancelled"]
_LOOK_S = 1.0
_OURS = ("contact_sheet",)  # options that name files of the server


class TurnEngine(Engine):
    """The worker's engine for another thread: each call waits for its turn on the worker's."""

    def __init__(self, worker: Worker, engine: Engine) -> None:
        self.__dict__.update(engine.__dict__)
        self._worker = worker

    def start(self, portrait: np.ndarray, **options: Any) -> StreamState:
        """As ``Engine.start``."""
        return self._by_turn(lambda: Engine.start(self, portrait, **options))

    def encode_motion(self, frames: np.ndarray) -> Motion:
        """As ``Engine.encode_motion``."""
        return self._by_turn(lambda: Engine.encode_motion(self, frames))

    def step(self, state: StreamState, window: np.ndarray | Motion, *args: Any, **options: Any):
        """As ``Engine.step``."""
        return self._by_turn(lambda: Engine.step(self, state, window, *args, **options))

    def flush(self, state: StreamState) -> Iterator[Tensor]:
        """As ``Engine.flush``, a turn for each chunk."""
        chunks = Engine.flush(self, state)
        while (chunk := self._by_turn(lambda: next(chunks, None))) is not None:
            yield chunk

    def _by_turn(self, work: Callable[[], Any]) -> Any:
        try:
            return self._worker.submit(work).result()
        except CancelledError:
            raise RefusedError("not_ready", "the server is shutting down, or its worker has failed") from None


@dataclass(eq=False)
class Job:
    """One film: what was sent, how far it is, what came of it."""

    folder: Path
    born_s: float
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
    def film(self) -> Path:
        """Where it is made."""
        return self.folder / "film.mp4"

    def to_dict(self) -> dict[str, Any]:
        """As in docs/protocol.md."""
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


class _StoppedError(Exception):
    """Ends ``animate`` from its progress call."""


class JobQueue:
    """Takes jobs, makes their films one after another, and forgets them in time. Event loop only."""

    def __init__(self, worker: Worker, folder: Path, config: ServerConfig, clock: Clock = time.monotonic) -> None:
        self._worker, self._folder, self._config, self._clock = worker, folder, config, clock
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()

    def open(self, options: Mapping[str, Any]) -> Job:
        """A job that waits for its portrait and clip.

        Raises:
            RefusedError: unusable options, or too many jobs.
        """
        checked = _checked(options)
        if sum(job.ended_s is None for job in self._jobs.values()) > self._config.waiting_jobs:
            raise RefusedError("server_full", "too many films are waiting: try again later", retry_after_s=30.0)
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        job = Job(folder, self._clock(), options={**checked, "center_fallback": self._worker.center_fallback})
        self._jobs[job.id] = job
        return job

    def find(self, ident: str) -> Job:
        """The job of that name.

        Raises:
            RefusedError: there is none any more.
        """
        if ident not in self._jobs:
            raise RefusedError("not_found", "no such job: it has expired, or the address is wrong")
        return self._jobs[ident]

    def begin(self, job: Job) -> None:
        """Queue a job whose portrait and clip are here.

        Raises:
            RefusedError: something is missing, or it has begun already.
        """
        if job.state != "open":
            raise RefusedError("bad_request", f"the job is {job.state}: open another one")
        if job.portrait is None or job.clip is None:
            missing = "portrait" if job.portrait is None else "clip"
            raise RefusedError("bad_request", f"no {missing} yet: send one first")
        job.state = "waiting"
        self._queue.put_nowait(job)

    def close(self, job: Job) -> None:
        """Cancel it where it is under way, and remove all of it."""
        job.cancelled = True
        self._jobs.pop(job.id, None)
        if job.state != "running":  # else ``work`` does it
            self._remove(job)

    async def work(self) -> None:
        """Make films until cancelled."""
        while True:
            job = await self._queue.get()
            if job.cancelled:
                continue
            job.state = "running"
            try:
                await asyncio.to_thread(self._make, job)
            except asyncio.CancelledError:
                job.cancelled = True
                raise
            finally:
                job.ended_s = self._clock()
                if job.cancelled:
                    self._remove(job)

    async def watch(self) -> None:
        """Forget what is too old, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now = self._clock()
            for job in list(self._jobs.values()):
                since = job.born_s if job.state == "open" else job.ended_s
                if since is not None and now - since > self._config.job_s:
                    self.close(job)

    def stop(self) -> None:
        """End what is under way."""
        for job in list(self._jobs.values()):
            self.close(job)

    def _make(self, job: Job) -> None:
        """On a thread of its own."""

        def advance(progress: Progress) -> None:
            job.progress = progress
            if job.cancelled:
                raise _StoppedError

        engine = self._worker.engine
        try:
            if engine is None:
                raise RefusedError("not_ready", self._worker.message or "the model is not loaded")
            assert job.portrait is not None
            assert job.clip is not None
            by_turns = TurnEngine(self._worker, engine)
            job.report = animate(job.portrait, job.clip, job.film, engine=by_turns, progress=advance, **job.options)
            job.state = "done"
        except _StoppedError:
            job.state = "cancelled"
        except PersonaLiveError as error:
            text = str(error)
            for path, name in ((job.portrait, "the portrait"), (job.clip, "the clip"), (job.film, "the film")):
                text = text.replace(str(path), name)
            kind = "internal" if isinstance(error, DeviceError) else "unusable_input"
            job.state, job.error = "failed", RefusedError(kind, text)
        except Exception as error:  # noqa: BLE001 (the films after this one are still to be made)
            _LOG.exception("a film failed", exc_info=error)
            job.state, job.error = "failed", RefusedError("internal", "an unexpected fault of the server")

    @staticmethod
    def _remove(job: Job) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``animate`` that a client may set.

    Raises:
        RefusedError: one that it may not, or an unusable value.
    """
    known = {name: value for name, value in asdict(AnimateOptions()).items() if name not in _OURS}
    known.pop("center_fallback")
    if unknown := [name for name in options if name not in known]:
        raise RefusedError("bad_request", f"unknown option {unknown[0]!r}: there are {', '.join(known)}")
    try:
        AnimateOptions(**options)
    except (InputError, TypeError) as error:
        raise RefusedError("bad_request", f"options: {error}") from None
    return dict(options)
