"""``personalive motion``: motion files, written and shown."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from personalive.cli.console import clock, progress, show_rows, size
from personalive.cli.options import WEIGHTS_METAVAR, ClipOptions, MotionModelOptions, with_groups

if TYPE_CHECKING:
    from personalive.offline.motion_file import MotionClip
    from personalive.offline.record import RecordReport

app = typer.Typer(
    help="Record a performance in a motion file, to replay it.",
    epilog="""
\b
Examples:
  personalive motion record clip.mp4 take.safetensors
  personalive motion show take.safetensors
  personalive animate me.jpg take.safetensors -o video.mp4
  personalive animate you.jpg take.safetensors -o video.mp4 --expression 1.3

A motion file holds the motion of a face over time: expression, angles, place and size. It holds no image and no
sound, fits any portrait, and only the model that recorded it.
""",
    rich_markup_mode=None,
)


class NoFace(StrEnum):
    """Motion of the frames in which the clip shows no face."""

    HOLD = "hold"
    ERROR = "error"


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
@with_groups
def record(
    driving: Annotated[Path, typer.Argument(metavar="DRIVING", help="Video, GIF or image of the face that drives.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The motion file, a .safetensors; an existing one is replaced.")
    ],
    model: MotionModelOptions = MotionModelOptions(),
    clip: ClipOptions = ClipOptions(),
    no_face: Annotated[
        NoFace,
        typer.Option(
            "--no-face", help="While the clip shows no face: 'hold' the last pose, or stop with an 'error'."
        ),
    ] = NoFace.HOLD,
) -> None:
    """Write the motion of the face in DRIVING to OUT.

    Replayed with the same model, OUT gives the video that DRIVING would have given, without its sound. Controls such
    as --expression are set when it is replayed.
    """
    from personalive.offline.record import RecordOptions  # noqa: PLC0415 (imports torch)
    from personalive.offline.record import record as write_motion_file  # noqa: PLC0415

    options = RecordOptions(no_face=no_face.value, center_fallback=model.is_tiny, **clip.to_dict())
    with progress("recording") as display:
        report = write_motion_file(
            driving,
            out,
            options,
            weights=model.weights,
            progress=display.show,
            loading=display.loading,
            preparing=display.preparing,
            **cast("dict[str, Any]", model.engine_options()),
        )
    _show_report(report)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A motion file.")],
    weights: Annotated[
        str | None,
        typer.Option(metavar=WEIGHTS_METAVAR, help="Also show whether FILE fits this model.", show_default="none"),
    ] = None,
) -> None:
    """Show what is in FILE."""
    from personalive.offline.motion_file import load_motion_file, weights_motion_digest  # noqa: PLC0415 (imports torch)

    clip = load_motion_file(file)
    rows = [("motion file", f"{file}, {size(file.stat().st_size)}"), *_rows(clip)]
    if weights is not None:
        rows.append(("fits", f"{weights}: {'yes' if weights_motion_digest(weights) == clip.reader else 'no'}"))
    show_rows(rows)


def _show_report(report: RecordReport) -> None:
    rows = [
        (
            "motion file",
            f"{report.output}, {size(Path(report.output).stat().st_size)}, recorded in {clock(report.seconds)}",
        ),
        *_rows(report.motion),
        ("model", f"{report.weights} on {report.device} in {report.dtype} by {report.backend}"),
        *(("warning", warning) for warning in report.warnings),
    ]
    show_rows(rows)


def _rows(clip: MotionClip) -> list[tuple[str, str]]:
    poses, tokens = clip.motion.poses, clip.motion.tokens
    ranges = {name: getattr(poses, name) for name in ("yaw", "pitch", "roll")}
    angles = ", ".join(
        f"{name} {round(float(v.min())):+d} to {round(float(v.max())):+d}" for name, v in ranges.items()
    )
    cuts = int(clip.cuts.sum())
    return [
        (
            "length",
            f"{len(clip)} frames, {clip.duration_s:.2f} s, {float(clip.fps):.4g} frames per second",
        ),
        ("shots", f"{cuts + 1}" if cuts else "1, no cuts"),
        ("head", f"{angles} degrees"),
        ("face", f"{tokens.shape[2]} tokens of {tokens.shape[3]} numbers per frame"),
        ("read by", f"motion networks {clip.reader}"),
    ]
