"""Tasks on a pool of actors: one process per device, which loads its model once and is begun anew where it dies."""

from __future__ import annotations

import math
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalive import __version__
from personalive.cluster.connect import check_address, connected
from personalive.errors import DeviceError, InputError

Job = Callable[[Any, int, Callable[[Any], None]], Any]  # (task, tries before, tell progress) -> result
Running = Mapping[int, Any]  # progress last told of each task at work, by its index; None before the first
_POLL_S = 0.5
_TRIES = 4  # of a task whose process dies


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Cluster, and the actors to have on it."""

    address: str  # see ``connected``
    actors: int | None = None  # None: one per GPU, or without GPUs one per four cores
    device: str = "auto"  # of the engine, as for ``load_engine``
    cores: int = 4  # of an actor without a GPU

    def __post_init__(self) -> None:
        check_address(self.address)
        if self.actors is not None and self.actors < 1:
            raise InputError(f"actors {self.actors}: give a number from 1 up")
        if ":" in self.device:
            raise InputError(f"device {self.device}: the cluster chooses; give {self.device.partition(':')[0]}")


class _Actor:
    """Process of the pool. Loads nothing before its first task, so that a process that dies of it is counted."""

    def __init__(self, make_job: Callable[[], Job], folder: str, version: str) -> None:
        with suppress(OSError):  # not on this machine: then no path may be relative
            os.chdir(folder)
        self._make_job, self._version = make_job, version
        self._job: Job | None = None
        self._progress: Any = None

    def ready(self) -> None:
        """Answer once the process is there."""

    def run(self, task: Any, tries: int) -> Any:
        """Do one task."""
        if self._version != __version__:
            raise DeviceError(f"{socket.gethostname()}: has personalive {__version__}, not {self._version}")
        self._progress = None
        self._job = self._job or self._make_job()
        return self._job(task, tries, self._tell)

    def _tell(self, progress: Any) -> None:
        self._progress = progress

    def progress(self) -> Any:
        """Progress last told; answered while ``run`` is at work."""
        return self._progress


class ActorPool:
    """Actors that do tasks of one job."""

    def __init__(self, ray: Any, make_job: Callable[[], Job], options: ClusterOptions) -> None:
        self._ray = ray
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count, resources = share_of_actor(nodes, options)
        actor = ray.remote(_Actor).options(max_restarts=-1, max_concurrency=2, **resources)
        self._actors = [actor.remote(make_job, str(Path.cwd()), __version__) for _ in range(count)]

    def end(self) -> None:
        """End the processes, whatever they are at."""
        for actor in self._actors:
            self._ray.kill(actor)

    def run(self, tasks: Sequence[Any], on_progress: Callable[[Running], None]) -> Iterator[tuple[int, Any]]:
        """Do all tasks, on whatever actors are free, and again where a process dies.

        Args:
            on_progress: called a few times per second; with nothing while all wait for room in the cluster.

        Yields:
            The index and result of each task as it is finished. The result is a ``DeviceError`` where the task's
            process died in every try.

        Raises:
            DeviceError: no process can be begun.
            Exception: what the job raised in a task.
        """
        return _Run(self._ray, self._actors, tasks, on_progress).results()

    def run_one(self, task: Any) -> Any:
        """Result of a single task; see ``run``.

        Raises:
            DeviceError: also where its process died in every try.
        """
        ((_, result),) = self.run([task], lambda _running: None)
        if isinstance(result, DeviceError):
            raise result
        return result


@contextmanager
def actor_pool(make_job: Callable[[], Job], options: ClusterOptions) -> Iterator[ActorPool]:
    """Actors on a cluster, which end with the context.

    Args:
        make_job: called in each actor before its first task; loads what all tasks need. Goes to other machines.
        options: where, and how many.

    Raises:
        InputError, DeviceError: see ``connected``.
    """
    with connected(options.address) as ray:
        pool = ActorPool(ray, make_job, options)
        try:
            yield pool
        finally:
            pool.end()


def share_of_actor(nodes: Sequence[Mapping[str, float]], options: ClusterOptions) -> tuple[int, dict[str, float]]:
    """Number of actors on machines with these resources, and what each reserves, by the names of Ray's options.

    Ray gives the processes as many threads as cores are reserved, unless ``OMP_NUM_THREADS`` is set.
    """
    with_gpu = [node for node in nodes if node.get("GPU")] if options.device != "cpu" else []
    if with_gpu:
        gpus = sum(node["GPU"] for node in with_gpu)
        count = options.actors or int(gpus)
        share = min(1.0, _rounded_down(gpus / count))
        return count, {
            "num_gpus": share,
            "num_cpus": min(node.get("CPU", 0) * share // node["GPU"] for node in with_gpu),
        }
    cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU")]
    if not cores:
        raise DeviceError("the cluster has no machine with processors; add one")
    if options.actors is None:
        each = min(options.cores, *cores)
        return sum(number // each for number in cores), {"num_cpus": each}
    for each in range(sum(cores) // options.actors, 0, -1):
        if sum(number // each for number in cores) >= options.actors:
            return options.actors, {"num_cpus": each}
    return options.actors, {"num_cpus": _rounded_down(sum(cores) / options.actors)}


def _rounded_down(share: float) -> float:
    return math.floor(share * 10_000) / 10_000  # Ray counts in ten-thousandths


class _Run:
    """One call of ``ActorPool.run``."""

    def __init__(
        self, ray: Any, actors: Sequence[Any], tasks: Sequence[Any], on_progress: Callable[[Running], None]
    ) -> None:
        self._ray, self._tasks, self._on_progress = ray, tasks, on_progress
        self._waiting = deque(range(len(tasks)))
        self._tries = Counter[int]()
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, int]] = {}  # reference of a result -> actor, task
        self._beginning = dict[Any, Any]()  # reference of an answer -> actor
        for actor in actors:
            self._begin(actor)
        self._asked: dict[Any, int] = {}  # reference of a progress -> task
        self._progress: dict[int, Any] = {}

    def results(self) -> Iterator[tuple[int, Any]]:
        """See ``ActorPool.run``."""
        left = len(self._tasks)
        while left:
            references = [*self._running, *self._beginning, *self._asked]
            for reference in self._ray.wait(references, num_returns=len(references), timeout=_POLL_S)[0]:
                if reference in self._asked:
                    self._hear(reference)
                elif reference in self._beginning:
                    self._begun(reference)
                elif found := self._finished(reference):
                    left -= 1
                    yield found
            while self._waiting and self._idle:
                self._give(self._idle.pop(), self._waiting.popleft())
            self._ask()

    def _begin(self, actor: Any) -> None:
        """Hear from an actor once it is there: now, when it is begun anew, or when the cluster has room for it."""
        self._beginning[actor.ready.options(max_task_retries=-1).remote()] = actor

    def _give(self, actor: Any, task: int) -> None:
        self._running[actor.run.remote(self._tasks[task], self._tries[task])] = actor, task
        self._progress[task] = None

    def _ask(self) -> None:
        self._on_progress(self._progress)
        asked = set(self._asked.values())
        self._asked |= {actor.progress.remote(): task for actor, task in self._running.values() if task not in asked}

    def _hear(self, reference: Any) -> None:
        task = self._asked.pop(reference)
        try:
            progress = self._ray.get(reference)
        except self._ray.exceptions.RayError:  # the reference of its result tells
            return
        if task in self._progress:
            self._progress[task] = progress

    def _begun(self, reference: Any) -> None:
        actor = self._beginning.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            if not (self._idle or self._running or self._beginning):
                reason = str(error).strip().splitlines()[-1]
                raise DeviceError(f"no process of the cluster can be begun ({reason}); see Ray's logs") from None
            return
        self._idle.append(actor)

    def _finished(self, reference: Any) -> tuple[int, Any] | None:
        actor, task = self._running.pop(reference)
        del self._progress[task]
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            self._begin(actor)
            self._tries[task] += 1
            if self._tries[task] < _TRIES:
                self._waiting.appendleft(task)
                return None
            return task, DeviceError(
                f"its process was ended {_TRIES} times, perhaps because memory ran out: use fewer --actors"
            )
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        self._idle.append(actor)
        return task, result
