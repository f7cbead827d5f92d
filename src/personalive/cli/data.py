"""``personalive data``: training sets from ordinary videos, and heads from portraits."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.checkpoints.layout import find_root
from personalive.cli.console import progress, show_rows, size
from personalive.cli.options import ClusterOption
from personalive.config import WEIGHTS_ENV, ModelConfig, default_weights_folder
from personalive.errors import InputError
from personalive.training.data.prepare.config import PrepareConfig

if TYPE_CHECKING:
    from personalive.training.data.prepare.report import Report

app = typer.Typer(
    help="Make training sets from videos and portraits.",
    epilog="""
\b
Examples:
  personalive data prepare videos/ set/
  personalive data prepare videos/ set/ --size 256 --workers 4
  personalive data prepare /shared/videos /shared/set --cluster 10.0.0.1:6379
  personalive data heads portraits/ heads/ --landmarks landmarks.npz
""",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def prepare(
    videos: Annotated[Path, typer.Argument(metavar="VIDEOS", help="Folder of videos, subfolders included.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder of the training set: a new one, or one to resume.")
    ],
    size_px: Annotated[
        int,
        typer.Option(
            "--size",
            metavar="PIXELS",
            help="Side of the framed images, an even number from "
            f"{PrepareConfig.min_size_px} to {PrepareConfig.max_size_px}.",
        ),
    ] = PrepareConfig.size_px,
    workers: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help="Processes, each with one video at a time.", show_default="one per core"),
    ] = None,
    cluster: ClusterOption = None,
    min_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Shorter clips are dropped.")
    ] = PrepareConfig.min_clip_s,
    framing_scale: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help="Side of the square around the head, in sides of the face box, as the model to be trained has it.",
        ),
    ] = ModelConfig.framing_scale,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder with YuNet, the face detector that `personalive weights download` fetches. Without it faces "
            "are found by OpenCV's cascades, and eyes and mouth are placed as in an average face.",
            show_default=f"{WEIGHTS_ENV}, else where `personalive weights download` puts them",
        ),
    ] = None,
) -> None:
    """Turn the videos in VIDEOS into a training set at OUT.

    Each shot with a face becomes clips of framed images at 25 fps, with boxes of face, eyes and mouth. OUT
    gets an index, a report of what was dropped and why, and a contact sheet. The same command resumes. You must
    have the right to use the videos for training, and the consent of the people in them.
    """
    from personalive.training.data.prepare.runner import prepare as make_set  # noqa: PLC0415 (imports torch)

    elsewhere = None
    if cluster is not None:
        from personalive.cluster.prepare import prepare_on_cluster  # noqa: PLC0415
        from personalive.cluster.tasks import ClusterOptions  # noqa: PLC0415

        options = ClusterOptions(address=cluster, actors=workers, device="cpu", cores=1)
        elsewhere = partial(prepare_on_cluster, options)
    with progress("preparing") as display:
        try:
            report = make_set(
                videos,
                out,
                size_px=size_px,
                framing_scale=framing_scale,
                min_clip_s=min_seconds,
                workers=workers,
                detector_folder=_detector_folder(weights),
                progress=display.show,
                elsewhere=elsewhere,
            )
        except KeyboardInterrupt as stop:
            stop.add_note(f"the videos finished so far are kept in {out}; the same command goes on")
            raise
    _show(report, out)


@app.command()
def heads(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="Folder of portraits.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the set, a new one.")],
    landmarks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Landmarks of the portraits, an npz file: names, landmarks_px (478 points of MediaPipe's face mesh "
            "for each) and, if at hand, person_mask.",
            show_default="found by the bundled networks",
        ),
    ] = None,
    tracks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Recorded performances, an npz file: blendshape_names, and blendshapes, pose and time_s of each "
            "clip as NAME.blendshapes and so on.",
        ),
    ] = None,
) -> None:
    """Turn the portraits in PHOTOS into heads at OUT that can give any performance.

    They are a second kind of synthetic head for training, beside the rendered ones: the same motion gives the same
    ground truth. Portraits with an open mouth are left out. You must have the right to use the portraits.
    """
    from personalive.training.data.prepare.heads import make_heads  # noqa: PLC0415 (imports torch)

    with progress("preparing") as display:
        report = make_heads(photos, out, landmarks, tracks, lambda share: display.step("portraits", share))
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(report.dropped.items())) or "none"
    show_rows([("set", f"{out}, {report.heads} heads, {report.tracks} tracks"), ("dropped", dropped)])


def _detector_folder(weights: Path | None) -> Path:
    if weights is None:
        return find_root(Path(os.environ.get(WEIGHTS_ENV) or default_weights_folder()))
    if not weights.is_dir():
        raise InputError(f"{weights}: no such folder; leave --weights out to find faces without it")
    return find_root(weights)


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
