"""``personalive batch``: many videos by one loaded model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.animate import VideoOptions
from personalive.cli.console import clock, progress, show_rows
from personalive.cli.options import ModelOptions, OnCluster, with_groups
from personalive.errors import InputError

if TYPE_CHECKING:
    from personalive.cluster.tasks import ClusterOptions
    from personalive.engine.base import BaseEngine
    from personalive.offline.batch import RowResult
    from personalive.offline.manifest import Batch, BatchRow
    from personalive.progress import Progress

EPILOG = """
\b
Examples:
  personalive batch videos.csv
  personalive batch videos.jsonl -o results --weights ~/weights --json results.json
  personalive batch portraits/ clips/ -o results
  personalive batch me.jpg clips/ -o results --side-by-side
  personalive batch videos.csv -o /shared/results --cluster 10.0.0.1:6379

\b
videos.csv, or the same as an object per line in videos.jsonl:
  portrait,driving,output,size,head-motion
  me.jpg,clip.mp4,first.mp4,,0.6
  you.jpg,clip.mp4,,512,

Columns are portrait, driving, output and the options of `personalive animate` that decide a video; an empty cell
takes the option of this command. Inputs are found from the manifest's folder; all three, and the manifest itself,
may be URLs (s3, gs, http).
A row that fails is reported at the end, and the rest is made. The same command makes what is missing: a video is kept
where its record names the same inputs, options and weights and is newer than the inputs.
"""


@dataclass(frozen=True, kw_only=True)
class _Written:
    """Files that a batch writes."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder of the videos, a path or URL, made if need be; a video without a name of its own is "
            "DRIVING_by_PORTRAIT.mp4.",
            show_default="the manifest's, or here",
        ),
    ] = None
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep the videos that are made already.")] = (
        True
    )
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write the summary to this file.", show_default="none"),
    ] = None


@with_groups
def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST|PORTRAITS",
            help="A .csv or .jsonl manifest, a path or URL, or with DRIVING a folder of portraits or one.",
        ),
    ],
    driving: Annotated[
        Path | None,
        typer.Argument(
            metavar="DRIVING",
            help="A folder of clips and motion files, or one: each drives every portrait.",
            show_default=False,
        ),
    ] = None,
    written: _Written = _Written(),
    model: ModelOptions = ModelOptions(),
    cluster: OnCluster = OnCluster(),
    video: VideoOptions = VideoOptions(),
) -> None:
    """Make the videos of a manifest, or of every portrait with every clip, by one model."""
    on_cluster = cluster.to_options(model.device)
    from personalive.offline.manifest import pair_folders, read_manifest  # noqa: PLC0415 (imports torch)

    defaults = {**video.to_dict(), "center_fallback": model.is_tiny}
    if driving is None:
        found = read_manifest(source, written.output, defaults)
    else:
        found = pair_folders(source, driving, written.output or ".", defaults)
    target = None if written.json_file is None else _summary_file(written.json_file, found)
    _summarise(found, _make(found.rows, model, on_cluster, resume=written.resume), target)


def _make(
    rows: list[BatchRow], model: ModelOptions, cluster: ClusterOptions | None, *, resume: bool
) -> list[RowResult]:
    from personalive.offline.batch import run_batch  # noqa: PLC0415 (imports torch)
    from personalive.runtime.load import load_engine, weights_name  # noqa: PLC0415

    weights, options = weights_name(model.weights), model.engine_options()
    with progress("batch") as display:

        def load() -> BaseEngine:
            return load_engine(weights, **options, progress=display.loading, preparing=display.preparing)

        def show(number: int, row: BatchRow, now: Progress) -> None:
            display.show(replace(now, label=f"{number} of {len(rows)}, {row.output.name}: {now.label}".strip()))

        if cluster is None:
            return run_batch(rows, load, weights, resume=resume, progress=show)
        from personalive.cluster.batch import run_batch_on_cluster  # noqa: PLC0415

        return run_batch_on_cluster(rows, weights, options, cluster, resume=resume, progress=display.show)


def _summary_file(path: Path, batch: Batch) -> Path:
    from personalive.media.paths import check_output  # noqa: PLC0415

    target = check_output(path, [], suffix=".json")
    if any(target in (row.portrait, row.driving, *row.writes) for row in batch.rows):
        raise InputError(f"{path}: belongs to a video of the batch; choose another file for the summary")
    return target


def _summarise(batch: Batch, results: list[RowResult], target: Path | None) -> None:
    """Print the table, failed rows last, and write it to ``target``.

    Raises:
        InputError: a row failed.
    """
    from personalive.media.paths import write_whole  # noqa: PLC0415

    problems = [*batch.problems, *(result.problem for result in results if result.problem)]
    rows = [(result.state, _described(result)) for result in results if not result.problem]
    rows += [("failed", problem) for problem in problems]
    count = Counter(state for state, _ in rows)
    show_rows([*rows, ("videos", ", ".join(f"{count[state]} {state}" for state in ("made", "kept", "failed")))])
    if target is not None:
        videos = [
            {"output": str(result.row.output), "state": result.state, "problem": result.problem} for result in results
        ]
        summary = {"videos": videos, "refused": batch.problems}
        write_whole(target, json.dumps(summary, indent=2) + "\n")
        show_rows([("json", str(target))])
    if problems:
        raise InputError(
            f"{len(problems)} of {len(rows)} videos failed, as listed: correct them and run the same command again, "
            "which keeps what is made"
        )


def _described(result: RowResult) -> str:
    """Path of the video, and of one that was made now its length, speed and warnings."""
    if (report := result.report) is None:
        return str(result.row.output)
    speed = f"{report.frames} frames, made in {clock(report.seconds)} at {report.fps:.1f} frames per second"
    return "; ".join([f"{report.output}  {speed}", *(f"warning: {warning}" for warning in report.warnings)])
