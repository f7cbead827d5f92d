"""``personalive data``: training sets out of ordinary videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.console import clock, progress, show_rows, size
from personalive.config import WEIGHTS_ENV, ModelConfig, default_weights_folder
from personalive.errors import InputError
from personalive.training.prepare.config import PrepareConfig

if TYPE_CHECKING:
    from personalive.training.prepare.report import Report
    from personalive.training.prepare.runner import Progress

app = typer.Typer(
    help="Make training sets out of videos.",
    epilog="""
\b
Examples:
  personalive data prepare videos/ set/
  personalive data prepare videos/ set/ --size 256 --workers 4
""",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def prepare(
    videos: Annotated[Path, typer.Argument(metavar="VIDEOS", help="A folder; videos in its folders count too.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The set: a new folder, or one to go on with.")],
    size_px: Annotated[
        int,
        typer.Option(
            "--size",
            metavar="PIXELS",
            help="Side of the framed pictures, an even number from "
            f"{PrepareConfig.min_size_px} to {PrepareConfig.max_size_px}.",
        ),
    ] = PrepareConfig.size_px,
    workers: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help="Videos at a time, each in a process.", show_default="one per core"),
    ] = None,
    min_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Shorter clips are dropped.")
    ] = PrepareConfig.min_clip_s,
    framing_scale: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help="Side of the square around the head in sides of the face; that of the model to be trained.",
        ),
    ] = ModelConfig.framing_scale,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the face detector of the weights download is. Without it faces are found by OpenCV's "
            "cascades, and the places of eyes and mouth are those of most faces.",
            show_default=f"{WEIGHTS_ENV}, else where `personalive weights download` puts them",
        ),
    ] = None,
) -> None:
    """Turn the videos in VIDEOS into a training set at OUT.

    Each shot with a face becomes clips of framed pictures at 25 fps, with boxes of face, eyes and mouth. OUT
    gets an index, a report of what was dropped and why, and a contact sheet. The same command resumes. You must
    have the right to use the videos for training, and the consent of the people in them.
    """
    from personalive.training.prepare.runner import prepare as make_set  # noqa: PLC0415 (imports torch)

    with progress("preparing") as show:

        def advance(now: Progress) -> None:
            show(now.share, 1.0, _told(now))

        try:
            report = make_set(
                videos,
                out,
                size_px=size_px,
                framing_scale=framing_scale,
                min_clip_s=min_seconds,
                workers=workers,
                detector_folder=_detector_folder(weights),
                progress=advance,
            )
        except KeyboardInterrupt as stop:
            stop.add_note(f"the videos finished so far are kept in {out}; the same command goes on")
            raise
    _show(report, out)


def _detector_folder(weights: Path | None) -> Path:
    if weights is None:
        return Path(os.environ.get(WEIGHTS_ENV) or default_weights_folder())
    if not weights.is_dir():
        raise InputError(f"{weights}: no such folder; leave --weights out to find faces without it")
    return weights


def _told(now: Progress) -> str:
    """``3 of 12 videos, 5120 frames, 88 per second, 4:10 left``."""
    left = "" if now.left_s is None else f", {clock(now.left_s)} left"
    return f"{now.videos} of {now.total} videos, {now.frames} frames, {now.fps:.0f} per second{left}"


def _show(report: Report, out: Path) -> None:
    minutes = 60 * report.hours
    kept = f"{report.clips} clips from {report.videos_kept} of {report.videos} videos"
    rows = [
        ("set", f"{out}, {kept}"),
        ("", f"{report.frames} frames, {minutes:.1f} minutes, {size(report.bytes)}"),
        ("dropped", report.told_drops()),
        ("report", str(out / "report.md")),
        ("look at", str(out / "contact_sheet.png")),
    ]
    show_rows([*rows, *(("warning", line) for line in report.warnings)])
