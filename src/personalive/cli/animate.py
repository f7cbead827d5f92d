"""``personalive animate``: a video from one portrait and one driving clip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalive.checkpoints.layout import MODEL_CONFIG, find_root
from personalive.cli.config import CliConfig
from personalive.cli.console import clock, progress, show_rows
from personalive.cli.options import (
    AUTO,
    PORTRAIT_HELP,
    WEIGHTS_HELP,
    WEIGHTS_METAVAR,
    ClipOptions,
    ControlOptions,
    CredentialsOption,
    Framing,
    ModelOptions,
    SeedOption,
    StepsOption,
    VisibleMarkOption,
    with_groups,
)
from personalive.config import PHOTO, KeyframeConfig
from personalive.errors import InputError, OutputError
from personalive.offline.config import VideoSizeConfig
from personalive.vision.config import PasteBackConfig

if TYPE_CHECKING:
    from personalive.offline.options import AnimateReport

EPILOG = """
\b
Examples:
  personalive animate --demo
  personalive animate me.jpg clip.mp4
  personalive animate me.jpg clip.mp4 -o video.mp4 --start 12 --end 20
  personalive animate me.jpg clip.mp4 -o video.mp4 --side-by-side --contact-sheet video.png
  personalive animate me.jpg clip.mp4 -o video.mp4 --output-frame portrait
  personalive animate me.jpg clip.mp4 --weights ~/weights --device cuda --dtype float16
  personalive animate me.jpg clip.mp4 --expression 1.2 --head-motion 0.6 --pose relative
  personalive animate me.jpg take.safetensors             replays a motion file

The video has one frame per frame of the clip, at the same times, and the clip's sound. Ctrl-C leaves what is
finished as a playable video whose name ends in .partial.mp4; after any kind of end the same command goes on from
the last finished part. A .json file beside each video records all settings.
"""


class NoFace(StrEnum):
    """Drivers of the frames in which the clip shows no face."""

    HOLD = "hold"
    NEUTRAL = "neutral"
    ERROR = "error"


class OutputFrame(StrEnum):
    """Frames of the video."""

    SQUARE = "square"
    PORTRAIT = "portrait"


class Pose(StrEnum):
    """Readings of the driver's head angles."""

    AUTO = "auto"
    ABSOLUTE = "absolute"
    RELATIVE = "relative"


@dataclass(frozen=True, kw_only=True)
class _Model(ModelOptions):
    """The model, which is the bundled one for photographs with --demo."""

    weights: Annotated[
        str, typer.Option(metavar=WEIGHTS_METAVAR, help=WEIGHTS_HELP, show_default="auto, or photo with --demo")
    ] = ""

    @property
    def knows_synthetic_heads(self) -> bool:
        """True of ``tiny`` and of models trained here, whose folders carry a config of their own."""
        return self.is_tiny or (find_root(Path(self.weights)) / MODEL_CONFIG).is_file()


_SIDE_BY_SIDE = "Show portrait, driver and result beside each other; a motion file has no driver to show."


@dataclass(frozen=True, kw_only=True)
class VideoOptions(ControlOptions, ClipOptions):
    """All that decides a video; for a batch, where a row does not."""

    pose: Annotated[
        Pose,
        typer.Option(
            help="'absolute' gives the portrait the driver's head angles; 'relative' adds how far the driver has "
            "turned since the first frame to the portrait's own: for drivers filmed from the side, and portraits "
            "that look aside. 'auto' is relative where the driver's first seconds are filmed from the side, and says "
            "so."
        ),
    ] = Pose.AUTO
    no_face: Annotated[
        NoFace,
        typer.Option(
            "--no-face",
            help="While the clip shows no face: 'hold' the last pose, return to the portrait's 'neutral' one, or "
            "stop with an 'error'.",
        ),
    ] = NoFace.HOLD
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Side of the video, an even number from "
            f"{VideoSizeConfig.min_side_px} to {VideoSizeConfig.max_side_px}; the model's frames are resized to it.",
            show_default="the model's own",
        ),
    ] = None
    output_frame: Annotated[
        OutputFrame,
        typer.Option(
            help="'square' is the model's own; 'portrait' the whole photograph at its own size, in which the head "
            "moves. Its sides may have up to "
            f"{PasteBackConfig.max_side_px} px; an odd last column or row is left out. Not with --size or "
            "--side-by-side."
        ),
    ] = OutputFrame.SQUARE
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="Keep the clip's sound.")] = True
    side_by_side: Annotated[
        bool | None,
        typer.Option(
            "--side-by-side/--no-side-by-side",
            help=_SIDE_BY_SIDE,
            show_default="no",
        ),
    ] = None
    keyframes: Annotated[
        bool,
        typer.Option(
            "--keyframes/--no-keyframes",
            help="Keep up to three frames of the result as further references for the later ones.",
        ),
    ] = True
    keyframe_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="DISTANCE",
            help="How far a frame's motion must be from all kept frames' for it to be kept too.",
            show_default=f"{KeyframeConfig.threshold:g}",
        ),
    ] = None
    steps: StepsOption = None
    seed: SeedOption = 0
    credentials: CredentialsOption = True
    visible_mark: VisibleMarkOption = False

    def to_dict(self, default: Framing = Framing.AUTO, *, side_by_side: bool = False) -> dict[str, Any]:
        """Return the fields as ``AnimateOptions`` names them.

        Args:
            default: framing if none is asked for.
            side_by_side: if neither is asked for and the frame is the square.
        """
        if not self.keyframes and self.keyframe_threshold is not None:
            raise typer.BadParameter("--keyframe-threshold means nothing with --no-keyframes: leave one out")
        panels = side_by_side and self.output_frame == OutputFrame.SQUARE
        threshold = self.keyframe_threshold if self.keyframes else math.inf
        return {
            **super().to_dict(default),
            **{field.name: getattr(self, field.name) for field in fields(ControlOptions)},
            "pose": self.pose.value,
            "no_face": self.no_face.value,
            "size_px": self.size,
            "steps": self.steps,
            "seed": self.seed,
            "audio": self.audio,
            "output_frame": self.output_frame.value,
            "credentials": self.credentials,
            "visible_mark": self.visible_mark,
            "side_by_side": panels if self.side_by_side is None else self.side_by_side,
            **({} if threshold is None else {"keyframe_threshold": threshold}),
        }


@dataclass(frozen=True, kw_only=True)
class _Video(VideoOptions):
    """All that decides the one video or the demo, and the image that is written beside it."""

    side_by_side: Annotated[
        bool | None,
        typer.Option(
            "--side-by-side/--no-side-by-side",
            help=_SIDE_BY_SIDE,
            show_default="no, or yes with --demo and square",
        ),
    ] = None
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG", help="Also write an image that shows the whole video at a glance.", show_default="none"
        ),
    ] = None


@with_groups
def animate(
    portrait: Annotated[
        Path | None, typer.Argument(metavar="PORTRAIT", help=PORTRAIT_HELP, show_default=False)
    ] = None,
    driving: Annotated[
        Path | None,
        typer.Argument(
            metavar="DRIVING",
            help="Video, GIF or image of the face that drives, or a motion file of `personalive motion record`.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The video, an .mp4; an existing one is replaced. With --demo a folder.",
            show_default="DRIVING_by_PORTRAIT.mp4 here",
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo/--no-demo",
            help="Animate a bundled portrait with a bundled clip and model: nothing to download. They show people "
            "who do not exist, or synthetic heads where --weights knows those. Writes a video with portrait, driver "
            f"and result side by side, and a contact sheet, to ./{CliConfig.demo_folder}.",
        ),
    ] = False,
    model: _Model = _Model(),
    video: _Video = _Video(),
) -> None:
    """Make a video of PORTRAIT performing what DRIVING shows."""
    model = replace(model, weights=model.weights or (PHOTO if demo else AUTO))
    framed_demo = demo and model.knows_synthetic_heads  # its clip is framed already
    options: dict[str, Any] = {
        **video.to_dict(Framing.NONE if framed_demo else Framing.AUTO, side_by_side=demo),
        "center_fallback": model.is_tiny or framed_demo,
        "contact_sheet": None if video.contact_sheet is None else str(video.contact_sheet),
    }
    if demo:
        if portrait is not None:
            raise typer.BadParameter("--demo brings its own portrait and clip: leave PORTRAIT and DRIVING out")
        _make_demo(output, options, model)
        return
    if portrait is None or driving is None:
        raise typer.BadParameter("give PORTRAIT and DRIVING, or --demo for the bundled ones")
    target = output or Path(f"{driving.stem}_by_{portrait.stem}.mp4")
    _show(_make(portrait, driving, target, options, model))


def _make(portrait: Path, driving: Path, target: Path, options: dict[str, Any], model: ModelOptions) -> AnimateReport:
    from personalive.offline.animate import animate as make_video  # noqa: PLC0415 (imports torch)

    with progress("animating") as display:
        return make_video(
            portrait,
            driving,
            target,
            weights=model.weights,
            progress=display.show,
            loading=display.loading,
            preparing=display.preparing,
            **model.engine_options(),
            **options,
        )


def _show(report: AnimateReport) -> None:
    length = f"{report.frames} frames, {report.duration_s:.2f} s"
    model = f"{report.weights} on {report.device} in {report.dtype} by {report.backend}"
    rows = [
        ("video", report.output),
        ("", f"{length}, made in {clock(report.seconds)} at {report.fps:.1f} frames per second"),
        ("contact sheet", report.contact_sheet or ""),
        ("record", str(Path(report.output).with_suffix(".json"))),
        ("model", f"{model}, {report.image_size_px} px, {report.keyframes} keyframes"),
        *(("warning", warning) for warning in report.warnings),
    ]
    show_rows([row for row in rows if row[1]])


# --- the demo ---------------------------------------------------------------------------------------------------


def demo_files(*, synthetic: bool = False) -> tuple[Path, Path]:
    """A bundled portrait and driving clip.

    Args:
        synthetic: of synthetic heads, else of generated people.

    Raises:
        InputError: this installation lacks them.
    """
    assets = Path(str(resources.files("personalive"))) / "assets"
    portrait, clip = ("demo/portrait.png", "demo") if synthetic else ("photo/portraits/portrait-4.jpg", "photo/demo")
    files = assets / portrait, assets / clip / "driving.mp4"
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: this installation lacks the demo: reinstall personalive")
    return files


def _make_demo(output: Path | None, options: dict[str, Any], model: _Model) -> None:
    portrait, driving = demo_files(synthetic=model.knows_synthetic_heads)
    with _demo_folder(output or Path(CliConfig.demo_folder)) as folder:
        options["contact_sheet"] = options["contact_sheet"] or str(folder / "contact_sheet.png")
        report = _make(portrait, driving, folder / "demo.mp4", options, model)
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
                folder.rmdir()  # refuses if anything is in it, such as the video of an interrupted run
        raise
