"""``personalive animate``: one film from one portrait and one driving clip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalive.cli.config import CliConfig
from personalive.cli.console import clock, loading, preparing, progress, show_rows
from personalive.cli.options import (
    AUTO,
    FRAMING_HELP,
    PORTRAIT_HELP,
    WEIGHTS_HELP,
    WEIGHTS_METAVAR,
    Backend,
    BackendOption,
    DecoderOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    EndOption,
    ExpressionOption,
    EyesOption,
    Framing,
    HeadMotionOption,
    MirrorOption,
    MouthOption,
    SeedOption,
    SmoothingOption,
    StartOption,
    Vram,
    VramOption,
    engine_options,
    names_tiny,
)
from personalive.config import TINY, KeyframeConfig
from personalive.engine.controls import Controls
from personalive.errors import InputError, OutputError
from personalive.offline.config import FilmSizeConfig

if TYPE_CHECKING:
    from personalive.offline.animate import AnimateReport, Progress

_PLAIN = Controls()
EPILOG = """
\b
Examples:
  personalive animate --demo
  personalive animate me.jpg clip.mp4
  personalive animate me.jpg clip.mp4 -o film.mp4 --start 12 --end 20
  personalive animate me.jpg clip.mp4 -o film.mp4 --side-by-side --contact-sheet film.png
  personalive animate me.jpg clip.mp4 --weights ~/weights --device cuda --dtype float16
  personalive animate me.jpg clip.mp4 --expression 1.2 --head-motion 0.6 --pose relative
  personalive animate me.jpg take.safetensors             replays what `personalive motion record` kept

The film has one frame per frame of the clip, at the same times, and the clip's sound. Ctrl-C leaves what is
finished as a playable film whose name ends in .partial.mp4. Beside every film a .json file tells how it was made.
"""


class NoFace(StrEnum):
    """What drives while the clip shows no face."""

    HOLD = "hold"
    NEUTRAL = "neutral"
    ERROR = "error"


class Pose(StrEnum):
    """How the driver's head angles are taken."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"


def animate(
    portrait: Annotated[
        Path | None, typer.Argument(metavar="PORTRAIT", help=PORTRAIT_HELP, show_default=False)
    ] = None,
    driving: Annotated[
        Path | None,
        typer.Argument(
            metavar="DRIVING",
            help="Any video, GIF or picture of the face that drives, or a motion file.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The film, an .mp4; an existing one is replaced. With --demo a folder.",
            show_default="DRIVING_by_PORTRAIT.mp4 here",
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo/--no-demo",
            help="Animate the bundled portrait with the bundled clip and model: nothing to download. Writes a film "
            "with portrait, driver and result side by side, and a contact sheet, to "
            f"./{CliConfig.demo_folder}.",
        ),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(metavar=WEIGHTS_METAVAR, help=WEIGHTS_HELP, show_default="auto, or tiny with --demo"),
    ] = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    vram: VramOption = Vram.AUTO,
    backend: BackendOption = Backend.AUTO,
    decoder: DecoderOption = None,
    seed: SeedOption = 0,
    start: StartOption = None,
    end: EndOption = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Side of the film's pictures, an even number from "
            f"{FilmSizeConfig.min_side_px} to {FilmSizeConfig.max_side_px}; the model's pictures are resized to it.",
            show_default="the model's own",
        ),
    ] = None,
    framing: Annotated[
        Framing | None, typer.Option(help=FRAMING_HELP, show_default="auto, or none with --demo")
    ] = None,
    no_face: Annotated[
        NoFace,
        typer.Option(
            "--no-face",
            help="While the clip shows no face: 'hold' the last pose, return to the portrait's 'neutral' one, or "
            "stop with an 'error'.",
        ),
    ] = NoFace.HOLD,
    expression: ExpressionOption = _PLAIN.expression,
    mouth: MouthOption = _PLAIN.mouth,
    eyes: EyesOption = _PLAIN.eyes,
    head_motion: HeadMotionOption = _PLAIN.head_motion,
    pose: Annotated[
        Pose,
        typer.Option(
            help="'absolute' gives the portrait the driver's own head angles; 'relative' adds to the portrait's "
            "how far the driver has turned since the first frame: for drivers filmed from the side, and portraits "
            "that look aside."
        ),
    ] = Pose(_PLAIN.pose),
    smoothing: SmoothingOption = _PLAIN.smoothing,
    mirror: MirrorOption = False,
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="Keep the clip's sound.")] = True,
    side_by_side: Annotated[
        bool | None,
        typer.Option(
            "--side-by-side/--no-side-by-side",
            help="Show portrait, driver and result beside each other; a motion file has no driver to show.",
            show_default="no, or yes with --demo",
        ),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Also write a picture that shows the whole film.", show_default="none"),
    ] = None,
    keyframes: Annotated[
        bool,
        typer.Option(
            "--keyframes/--no-keyframes",
            help="Remember up to three telling frames of the film as further references.",
        ),
    ] = True,
    keyframe_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="DISTANCE",
            help="How different motion must be from all remembered frames for one more to be remembered.",
            show_default=f"{KeyframeConfig.threshold:g}",
        ),
    ] = None,
) -> None:
    """Make a film of PORTRAIT performing what DRIVING shows."""
    options: dict[str, Any] = {
        "seed": seed,
        "start_s": start,
        "end_s": end,
        "size_px": size,
        "no_face": no_face.value,
        "audio": audio,
        "expression": expression,
        "mouth": mouth,
        "eyes": eyes,
        "head_motion": head_motion,
        "pose": pose.value,
        "smoothing": smoothing,
        "mirror": mirror,
        "contact_sheet": None if contact_sheet is None else str(contact_sheet),
        **_keyframe_options(keyframes, keyframe_threshold),
    }
    weights = weights or (TINY if demo else AUTO)
    options |= {
        "framing": framing.value if framing else ("none" if demo else "auto"),
        "side_by_side": demo if side_by_side is None else side_by_side,
        "center_fallback": demo or names_tiny(weights),
    }
    engine = {"weights": weights} | engine_options(
        device=device, dtype=dtype, vram=vram, backend=backend, decoder=decoder
    )
    if demo:
        if portrait is not None:
            raise typer.BadParameter("--demo brings its own portrait and clip: leave PORTRAIT and DRIVING out")
        _make_demo(output, options, engine)
        return
    if portrait is None or driving is None:
        raise typer.BadParameter("give PORTRAIT and DRIVING, or --demo for the bundled ones")
    film = output or Path(f"{driving.stem}_by_{portrait.stem}.mp4")
    _show(_make(portrait, driving, film, options, engine))


def _keyframe_options(wanted: bool, threshold: float | None) -> dict[str, float]:
    if not wanted:
        if threshold is not None:
            raise typer.BadParameter("--keyframe-threshold means nothing with --no-keyframes: leave one out")
        return {"keyframe_threshold": math.inf}
    return {} if threshold is None else {"keyframe_threshold": threshold}


def _make(
    portrait: Path, driving: Path, film: Path, options: dict[str, Any], engine: dict[str, Any]
) -> AnimateReport:
    from personalive.offline.animate import animate as make_film  # noqa: PLC0415 (imports torch)

    with progress("animating") as show:

        def advance(progress: Progress) -> None:
            show(progress.frames, progress.total, told(progress))

        return make_film(
            portrait,
            driving,
            film,
            progress=advance,
            loading=loading(show),
            preparing=preparing(show),
            **engine,
            **options,
        )


def told(progress: Progress) -> str:
    """``120 of about 500 frames, 8.1 per second, 0:47 left``."""
    rate = f"{progress.fps:.1f} per second"
    if progress.total is None or progress.frames > progress.total:
        return f"{progress.frames} frames, {rate}"
    left = (progress.total - progress.frames) / max(progress.fps, 1e-9)
    return f"{progress.frames} of about {progress.total} frames, {rate}, {clock(left)} left"


def _show(report: AnimateReport) -> None:
    length = f"{report.frames} frames, {report.duration_s:.2f} s"
    model = f"{report.weights} on {report.device} in {report.dtype} by {report.backend}"
    rows = [
        ("film", report.output),
        ("", f"{length}, made in {clock(report.seconds)} at {report.fps:.1f} frames per second"),
        ("contact sheet", report.contact_sheet or ""),
        ("record", str(Path(report.output).with_suffix(".json"))),
        ("model", f"{model}, {report.image_size_px} px, {report.keyframes} keyframes"),
        *(("warning", warning) for warning in report.warnings),
    ]
    show_rows([row for row in rows if row[1]])


# --- the demo ---------------------------------------------------------------------------------------------------


def demo_files() -> tuple[Path, Path]:
    """The bundled portrait and driving clip.

    Raises:
        InputError: this installation lacks them.
    """
    folder = Path(str(resources.files("personalive"))) / "assets" / "demo"
    portrait, driving = folder / "portrait.png", folder / "driving.mp4"
    for path in (portrait, driving):
        if not path.is_file():
            raise InputError(f"{path}: this installation lacks the demo: reinstall personalive")
    return portrait, driving


def _make_demo(output: Path | None, options: dict[str, Any], engine: dict[str, Any]) -> None:
    portrait, driving = demo_files()
    with _demo_folder(output or Path(CliConfig.demo_folder)) as folder:
        options["contact_sheet"] = options["contact_sheet"] or str(folder / "contact_sheet.png")
        report = _make(portrait, driving, folder / "demo.mp4", options, engine)
    _show(report)
    show_rows([("next", f"watch {report.output} and look at {report.contact_sheet}")])


@contextmanager
def _demo_folder(folder: Path) -> Iterator[Path]:
    """``folder``, made if need be; an error leaves no empty one behind."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}): choose another folder with -o") from None
    try:
        yield folder
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()  # refuses if anything is in it, such as the film of an interrupted run
        raise
