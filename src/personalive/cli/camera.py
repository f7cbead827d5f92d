"""``personalive camera``: a camera drives a portrait, the result goes to a virtual camera, a stream or a video."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.animate import OutputFrame
from personalive.cli.console import clock, progress, show_rows
from personalive.cli.options import (
    PORTRAIT_HELP,
    ControlOptions,
    CredentialsOption,
    LiveStepsOption,
    MirrorOption,
    ModelOptions,
    VisibleMarkOption,
    with_groups,
)
from personalive.live.config import LiveConfig
from personalive.offline.config import VideoSizeConfig
from personalive.progress import Progress

if TYPE_CHECKING:
    from personalive.live.camera import CameraProgress

EPILOG = """
\b
Examples:
  personalive camera me.jpg                                   camera 0 in, virtual camera out, for Zoom or Meet
  personalive camera me.jpg --from 1 --to rtmp://localhost/live/key
  personalive camera me.jpg --from clip.mp4 --to video.mp4 --seconds 20
  personalive camera me.jpg --from srt://host:9000 --to srt://other:9001

A clip or motion file plays over and over. Ctrl-C ends it; a video file is whole then. The virtual camera needs
`pip install "personalive[camera]"` and a device: v4l2loopback on Linux, OBS on Windows and macOS.
"""


@with_groups
def camera(
    portrait: Annotated[Path, typer.Argument(metavar="PORTRAIT", help=PORTRAIT_HELP)],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="CAMERA|URL|FILE", help="A camera's number, an address, a clip or a motion file."
        ),
    ] = "0",
    target: Annotated[
        str,
        typer.Option(
            "--to", metavar="virtual|URL|MP4", help="'virtual', rtmp://, srt://, udp:// or tcp://, or a video file."
        ),
    ] = "virtual",
    model: ModelOptions = ModelOptions(),
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=VideoSizeConfig.min_side_px,
            max=VideoSizeConfig.max_side_px,
            help="Side of the frames that are sent, an even number.",
            show_default="the model's own",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End after this many seconds.", show_default="until Ctrl-C")
    ] = None,
    output_frame: Annotated[
        OutputFrame,
        typer.Option(
            help="'square' is the model's own; 'portrait' the whole photograph, in which the head moves, its longer "
            f"side shrunk to {LiveConfig.photograph_side_px} px. Not with --size."
        ),
    ] = OutputFrame.SQUARE,
    steps: LiveStepsOption = None,
    mirror: MirrorOption = True,
    credentials: CredentialsOption = True,
    visible_mark: VisibleMarkOption = False,
    controls: ControlOptions = ControlOptions(),
) -> None:
    """Let a camera drive PORTRAIT, live, into a virtual camera, a stream or a video."""
    from personalive.live.camera import CameraOptions, run_camera  # noqa: PLC0415
    from personalive.live.controls import LiveControls  # noqa: PLC0415 (imports torch)
    from personalive.live.worker import make_worker  # noqa: PLC0415

    if size is not None and size % 2:
        raise typer.BadParameter(f"--size {size}: give an even number")
    options = CameraOptions(
        portrait=portrait,
        source=source,
        target=target,
        size_px=size,
        seconds=seconds,
        controls=LiveControls(
            mirror=mirror,
            visible_mark=visible_mark,
            output_frame=output_frame.value,
            steps=steps,
            **asdict(controls),
        ),
        credentials=credentials,
    )
    with progress("live") as display:
        sent = run_camera(
            make_worker(model.weights, model.engine_options(), steps=steps),
            options,
            lambda now: display.show(Progress(now.frames, None, now.fps, note=_note(now))),
            display.step,
        )
    show_rows([("sent", f"{sent.frames} frames, {sent.fps:.1f} per second, {_note(sent)}"), ("to", target)])


def _note(now: CameraProgress) -> str:
    """Time and delay, such as ``0:12, 1540 ms behind the driver``."""
    behind = "" if now.delay_ms is None else f", {now.delay_ms:.0f} ms behind the driver"
    return f"{clock(now.seconds)}{behind}"
