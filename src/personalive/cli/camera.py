"""``personalive camera``: a camera drives a portrait, the result goes to a virtual camera, a stream or a film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.console import clock, progress, show_rows
from personalive.cli.options import (
    AUTO,
    PORTRAIT_HELP,
    Backend,
    BackendOption,
    DecoderOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    ExpressionOption,
    EyesOption,
    HeadMotionOption,
    MirrorOption,
    MouthOption,
    SmoothingOption,
    Vram,
    VramOption,
    WeightsOption,
    engine_options,
)
from personalive.engine.controls import Controls
from personalive.offline.config import FilmSizeConfig

if TYPE_CHECKING:
    from personalive.live.camera import CameraProgress

_PLAIN = Controls()
EPILOG = """
\b
Examples:
  personalive camera me.jpg                                   camera 0 in, virtual camera out, for Zoom or Meet
  personalive camera me.jpg --from 1 --to rtmp://localhost/live/key
  personalive camera me.jpg --from clip.mp4 --to film.mp4 --seconds 20
  personalive camera me.jpg --from srt://host:9000 --to srt://other:9001

A clip or motion file plays over and over. Ctrl-C ends it; a film is whole then. The virtual camera needs
`pip install "personalive[camera]"` and a device: v4l2loopback on Linux, OBS on Windows and macOS.
"""


def camera(
    portrait: Annotated[Path, typer.Argument(metavar="PORTRAIT", help=PORTRAIT_HELP)],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="CAMERA|URL|FILE", help="A camera's number, an address, a clip or a template."
        ),
    ] = "0",
    target: Annotated[
        str,
        typer.Option(
            "--to", metavar="virtual|URL|MP4", help="'virtual', rtmp://, srt://, udp:// or tcp://, or a film."
        ),
    ] = "virtual",
    weights: WeightsOption = AUTO,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    vram: VramOption = Vram.AUTO,
    backend: BackendOption = Backend.AUTO,
    decoder: DecoderOption = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=FilmSizeConfig.min_side_px,
            max=FilmSizeConfig.max_side_px,
            help="Side of the pictures that are sent, an even number.",
            show_default="the model's own",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End after so long.", show_default="until Ctrl-C")
    ] = None,
    mirror: MirrorOption = True,
    expression: ExpressionOption = _PLAIN.expression,
    mouth: MouthOption = _PLAIN.mouth,
    eyes: EyesOption = _PLAIN.eyes,
    head_motion: HeadMotionOption = _PLAIN.head_motion,
    smoothing: SmoothingOption = _PLAIN.smoothing,
) -> None:
    """Let a camera drive PORTRAIT, live, into a virtual camera, a stream or a film."""
    from personalive.live.camera import CameraOptions, run_camera  # noqa: PLC0415
    from personalive.live.controls import LiveControls  # noqa: PLC0415 (imports torch)
    from personalive.live.worker import make_worker  # noqa: PLC0415

    if size is not None and size % 2:
        raise typer.BadParameter(f"--size {size}: give an even number")
    controls = LiveControls(
        mirror=mirror, expression=expression, mouth=mouth, eyes=eyes, head_motion=head_motion, smoothing=smoothing
    )
    options = CameraOptions(
        portrait=portrait, source=source, target=target, size_px=size, seconds=seconds, controls=controls
    )
    with progress("live") as show:
        sent = run_camera(
            make_worker(
                weights,
                engine_options(device=device, dtype=dtype, vram=vram, backend=backend, decoder=decoder),
            ),
            options,
            lambda now: show(now.seconds, seconds, _told(now)),
            lambda what, share: show(share, 1.0, f"{what}: {share:.0%}"),
        )
    show_rows([("sent", _told(sent)), ("to", target)])


def _told(now: CameraProgress) -> str:
    """``0:12, 118 frames, 9.8 per second, 1540 ms behind the driver``."""
    behind = "" if now.delay_ms is None else f", {now.delay_ms:.0f} ms behind the driver"
    return f"{clock(now.seconds)}, {now.frames} frames, {now.fps:.1f} per second{behind}"
