"""``personalive motion``: performances kept in files, and what is in them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.animate import told
from personalive.cli.console import clock, loading, preparing, progress, show_rows, size
from personalive.cli.options import (
    AUTO,
    FRAMING_HELP,
    WEIGHTS_METAVAR,
    Backend,
    BackendOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    EndOption,
    Framing,
    MirrorOption,
    StartOption,
    Vram,
    VramOption,
    WeightsOption,
    names_tiny,
)

if TYPE_CHECKING:
    from personalive.offline.animate import Progress
    from personalive.offline.motion_file import MotionClip
    from personalive.offline.record import RecordReport

app = typer.Typer(
    help="Keep a performance in a file and replay it.",
    epilog="""
\b
Examples:
  personalive motion record clip.mp4 take.safetensors
  personalive motion show take.safetensors
  personalive animate me.jpg take.safetensors -o film.mp4
  personalive animate you.jpg take.safetensors -o film.mp4 --expression 1.3

A motion file holds what a model reads of a face: expression, angles, place and size, and when. It holds no
picture and no sound, fits any portrait, and only the model that read it.
""",
    rich_markup_mode=None,
)


class NoFace(StrEnum):
    """What is recorded while the clip shows no face."""

    HOLD = "hold"
    ERROR = "error"


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def record(
    driving: Annotated[
        Path, typer.Argument(metavar="DRIVING", help="Any video, GIF or picture of the face that drives.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The template, a .safetensors; an existing one is replaced.")
    ],
    weights: WeightsOption = AUTO,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    vram: VramOption = Vram.AUTO,
    backend: BackendOption = Backend.AUTO,
    start: StartOption = None,
    end: EndOption = None,
    framing: Annotated[Framing, typer.Option(help=FRAMING_HELP)] = Framing.AUTO,
    no_face: Annotated[
        NoFace,
        typer.Option(
            "--no-face", help="While the clip shows no face: 'hold' the last pose, or stop with an 'error'."
        ),
    ] = NoFace.HOLD,
    mirror: MirrorOption = False,
) -> None:
    """Keep what the face in DRIVING does in OUT.

    Replayed with the same model, OUT gives the film that DRIVING would have given, without its sound. Expression,
    head motion and smoothing are not in it: turn them when it is replayed.
    """
    from personalive.offline.record import RecordOptions  # noqa: PLC0415 (imports torch)
    from personalive.offline.record import record as make_template  # noqa: PLC0415

    options = RecordOptions(
        framing=framing.value,
        no_face=no_face.value,
        center_fallback=names_tiny(weights),
        start_s=start,
        end_s=end,
        mirror=mirror,
    )
    with progress("reading") as show_progress:

        def advance(now: Progress) -> None:
            show_progress(now.frames, now.total, told(now))

        report = make_template(
            driving,
            out,
            options,
            weights=weights,
            device=device,
            dtype=dtype.value,
            vram=vram.value,
            backend=backend.value,
            progress=advance,
            loading=loading(show_progress),
            preparing=preparing(show_progress),
        )
    _show_report(report)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A motion file.")],
    weights: Annotated[
        str | None,
        typer.Option(metavar=WEIGHTS_METAVAR, help="Also say whether FILE fits this model.", show_default="none"),
    ] = None,
) -> None:
    """Tell what is in FILE."""
    from personalive.offline.motion_file import load_motion_file, weights_motion_digest  # noqa: PLC0415 (imports torch)

    template = load_motion_file(file)
    rows = [("template", f"{file}, {size(file.stat().st_size)}"), *_rows(template)]
    if weights is not None:
        rows.append(("fits", f"{weights}: {'yes' if weights_motion_digest(weights) == template.reader else 'no'}"))
    show_rows(rows)


def _show_report(report: RecordReport) -> None:
    rows = [
        ("template", f"{report.output}, {size(Path(report.output).stat().st_size)}, read in {clock(report.seconds)}"),
        *_rows(report.motion),
        ("model", f"{report.weights} on {report.device} in {report.dtype} by {report.backend}"),
        *(("warning", warning) for warning in report.warnings),
    ]
    show_rows(rows)


def _rows(template: MotionClip) -> list[tuple[str, str]]:
    poses, tokens = template.motion.poses, template.motion.tokens
    ranges = {name: getattr(poses, name) for name in ("yaw", "pitch", "roll")}
    angles = ", ".join(
        f"{name} {round(float(v.min())):+d} to {round(float(v.max())):+d}" for name, v in ranges.items()
    )
    cuts = int(template.cuts.sum())
    return [
        (
            "length",
            f"{len(template)} frames, {template.duration_s:.2f} s, {float(template.fps):.4g} frames per second",
        ),
        ("shots", f"{cuts + 1}" if cuts else "1, no cuts"),
        ("head", f"{angles} degrees"),
        ("face", f"{tokens.shape[2]} tokens of {tokens.shape[3]} numbers per frame"),
        ("read by", f"motion networks {template.reader}"),
    ]
