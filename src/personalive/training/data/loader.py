"""Samples of every step, drawn ahead of the device by loader processes or once for the whole run.

A sample depends on (seed, stage, step, row) alone, whoever draws it.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch

from personalive.errors import DeviceError, OutputError
from personalive.media.paths import write_whole
from personalive.progress import Meter, Progress
from personalive.training.batch import Tensors
from personalive.training.config import TrainConfig
from personalive.training.data.sets import Pair, TrainingSet
from personalive.training.data.signals import begin_worker, sigint_later
from personalive.training.distributed import ProcessGroup

_CACHE_STEP = 1 << 41  # in the place of the step: no run gets there
_CACHE_INDEX = "cache.json"
_SMALL_VALUES = 4096  # per sample: larger float tensors are cached in half precision
B = TypeVar("B", bound=Tensors)


class Drawn(NamedTuple):
    """Samples, and the generators that drew them: all further draws."""

    samples: list[Pair]
    rngs: list[np.random.Generator]


@dataclass(frozen=True)
class Source:
    """Samples by the number of their step and row."""

    data: TrainingSet
    key: tuple[int, ...]  # seed and stage
    clip: tuple[int, int] | None = None  # frames and stride of clips; None: pairs

    def rng(self, step: int, row: int) -> np.random.Generator:
        """The generator that draws a sample."""
        return np.random.default_rng([*self.key, step, row])

    def draw(self, step: int, rows: Sequence[int]) -> Drawn:
        """Samples of one step."""
        rngs = [self.rng(step, row) for row in rows]
        return Drawn([self.data.clip(rng, *self.clip) if self.clip else self.data.pair(rng) for rng in rngs], rngs)


def load(source: Source, keys: Iterable[tuple[int, Sequence[int]]], workers: int) -> Iterator[Drawn]:
    """Samples for (step, rows) after (step, rows), drawn ahead by ``workers`` processes; 0 draws here.

    Raises:
        PersonaLiveError: what drawing one raised.
        DeviceError: a process was ended from outside.
    """
    if not workers:
        yield from (source.draw(*key) for key in keys)
        return
    context, rest = multiprocessing.get_context("spawn"), iter(keys)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(source,))
    try:
        with sigint_later():
            ahead = deque(pool.submit(_draw, *key) for key in islice(rest, workers * _AHEAD))
        while ahead:
            drawn = ahead.popleft().result()
            ahead.extend(pool.submit(_draw, *key) for key in islice(rest, 1))
            yield drawn
    except BrokenProcessPool:
        raise DeviceError(
            "a loader process was ended from outside, perhaps because memory ran out: lower data.workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_AHEAD = 2  # batches that each process is ahead
_worker: dict[str, Source] = {}  # of a loader process


def _begin_worker(source: Source) -> None:
    begin_worker()
    _worker["source"] = source


def _draw(step: int, rows: Sequence[int]) -> Drawn:
    return _worker["source"].draw(step, rows)


# --- once for the whole run ---------------------------------------------------------------------------------


class BatchCache(Generic[B]):
    """Rows of ready batches on disk, drawn and passed through the frozen networks once.

    Large float tensors are kept in half precision, which is finer than the eight bits of the pixels they come from.
    """

    def __init__(self, folder: Path, kind: type[B], count: int) -> None:
        self.folder, self.kind, self.count = folder, kind, count
        self.arrays: dict[str, np.ndarray] = {}

    def fill(
        self,
        config: TrainConfig,
        source: Source,
        make: Callable[[list[Pair]], B],
        processes: ProcessGroup,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Make what is not there yet; the processes of a run share the work.

        Raises:
            OutputError: the disk refuses.
        """
        if not (self.folder / _CACHE_INDEX).exists():
            starts = range(processes.rank * config.batch, self.count, processes.size * config.batch)
            own = [range(at, min(at + config.batch, self.count)) for at in starts]
            meter, done = Meter(sum(map(len, own)), "samples", label="cache"), 0
            keys = [(_CACHE_STEP, rows) for rows in own]
            try:
                for rows, drawn in zip(own, load(source, keys, config.data.workers), strict=True):
                    self._write(rows, make(drawn.samples), processes)
                    done += len(rows)
                    on_progress(meter.at(done))
            except OSError as error:
                raise OutputError(
                    f"{self.folder}: cannot be written ({error.strerror}): lower data.cached"
                ) from error
            processes.wait()
            if processes.writes:
                index = {"samples": self.count, "fields": list(self.arrays)}
                write_whole(self.folder / _CACHE_INDEX, json.dumps(index))
            processes.wait()
        self._open(json.loads((self.folder / _CACHE_INDEX).read_text())["fields"], "r")

    def take(self, rows: Sequence[int]) -> B:
        """A batch of cached rows, in float32 where it was float."""
        parts = {
            name: torch.from_numpy(np.stack([array[row] for row in rows])) for name, array in self.arrays.items()
        }
        return self.kind(**{n: part.float() if part.is_floating_point() else part for n, part in parts.items()})

    def _write(self, rows: Sequence[int], made: B, processes: ProcessGroup) -> None:
        tensors = made.tensors()
        if not self.arrays:
            self.folder.mkdir(parents=True, exist_ok=True)
            if processes.writes:
                for name, tensor in tensors.items():
                    shape = (self.count, *tensor.shape[1:])
                    np.lib.format.open_memmap(self._path(name), "w+", _dtype(tensor), shape).flush()
            processes.wait()
            self._open(tensors, "r+")
        for name, tensor in tensors.items():
            self.arrays[name][rows.start : rows.stop] = tensor.cpu().numpy()  # type: ignore[attr-defined]

    def _open(self, names: Iterable[str], mode: Literal["r", "r+"]) -> None:
        self.arrays = {name: np.load(self._path(name), mmap_mode=mode, allow_pickle=False) for name in names}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def _dtype(tensor: torch.Tensor) -> np.dtype:
    if tensor.is_floating_point():
        return np.dtype(np.float16 if tensor[0].numel() > _SMALL_VALUES else np.float32)
    return np.dtype(np.bool_ if tensor.dtype is torch.bool else np.uint8)
