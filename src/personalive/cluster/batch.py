"""Batch on a cluster: the rows of ``run_batch``, each made by whatever actor is free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from personalive.cluster.tasks import ClusterOptions, Job, Running, actor_pool
from personalive.errors import DeviceError
from personalive.offline.batch import RowResult, by_portrait, is_made, make_row, note_stop
from personalive.offline.manifest import BatchRow
from personalive.progress import Progress
from personalive.runtime.load import EngineOptions, load_engine


def run_batch_on_cluster(
    rows: Sequence[BatchRow],
    weights: str,
    engine: EngineOptions,
    cluster: ClusterOptions,
    *,
    resume: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> list[RowResult]:
    """Make the video of every row, as ``run_batch`` does.

    Args:
        weights, engine: of ``load_engine``, which each actor calls once.
        cluster: where. It is asked only if there is a video to make.
        resume: keep what is made already.
        progress: called a few times per second with the videos finished and the speed of all actors.

    Returns:
        One result per row, in the order of ``by_portrait``, whatever the number of actors.

    Raises:
        PersonaLiveError: there is no such cluster, or the engine cannot be loaded. A row that fails is a result.
        KeyboardInterrupt: with a note of how far it is.
    """
    ordered = by_portrait(rows)
    kept = {i: RowResult(row=row, state="kept") for i, row in enumerate(ordered) if resume and is_made(row, weights)}
    results, todo = dict(kept), [index for index in range(len(ordered)) if index not in kept]

    def show(running: Running) -> None:
        if progress is not None:
            progress(_progress(len(results), len(ordered), running))

    try:
        if todo:
            with actor_pool(partial(_job, weights, engine), cluster) as pool:
                for number, result in pool.run([ordered[index] for index in todo], show):
                    row = ordered[todo[number]]
                    if isinstance(result, DeviceError):
                        result = RowResult(row=row, state="failed", problem=f"{row.where}: {result}")  # noqa: PLW2901
                    results[todo[number]] = result
    except KeyboardInterrupt as stop:
        note_stop(stop, results.values(), len(ordered))
        raise
    return [results[index] for index in range(len(ordered))]


def _progress(done: int, total: int, running: Running) -> Progress:
    fps = sum(now.rate or 0.0 for now in running.values() if now is not None)
    note = f"{len(running)} at work, {fps:.1f} frames per second" if running else "waiting for room in the cluster"
    return Progress(done, total, unit="videos", note=note)


def _job(weights: str, options: EngineOptions) -> Job:
    engine = load_engine(weights, **options)

    def make(row: BatchRow, tries: int, tell: Callable[[Progress], None]) -> RowResult:
        if tries and is_made(row, weights):  # by the process that then died
            return RowResult(row=row, state="kept")
        return make_row(row, engine, tell)

    return make
