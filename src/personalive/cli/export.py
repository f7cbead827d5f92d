"""``personalive export``: the networks as files for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personalive.cli.console import loading, preparing, progress, show_rows, size
from personalive.cli.options import AUTO, DeviceOption, WeightsOption

app = typer.Typer(
    help="Write the networks as files that other programs run.",
    epilog="""
\b
Examples:
  personalive export onnx nets --weights tiny          every network call, checked with onnxruntime
  personalive export onnx nets --dtype float16 --device cuda
  personalive export tensorrt                          engines for this GPU; `--backend auto` uses them then
""",
    rich_markup_mode=None,
)


class ExportDtype(StrEnum):
    """Number formats that ONNX runtimes compute in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def onnx(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    weights: WeightsOption = AUTO,
    device: DeviceOption = AUTO,
    dtype: Annotated[
        ExportDtype, typer.Option(help="Number format; float16 is checked on CUDA only.")
    ] = ExportDtype.FLOAT32,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Run every file with onnxruntime and compare it with torch.")
    ] = True,
) -> None:
    """Write the networks as ONNX files.

    call.onnx is a whole call: frames in flight in, finished frames out, reference keys and values as inputs by name,
    for any number of keyframes. The other files are the calls around it: reading a driver, reading a portrait,
    drawing a pose, decoding. export.json lists inputs, shapes and the difference to torch.
    """
    from personalive.runtime.export import export_onnx  # noqa: PLC0415 (imports torch)
    from personalive.runtime.load import load_engine  # noqa: PLC0415

    with progress("exporting") as show:
        engine = load_engine(weights, device=device, dtype=dtype.value, backend="eager", progress=loading(show))
        files = export_onnx(
            engine.backend,
            out,
            check=check,
            on_progress=lambda what, share: show(share, 1.0, f"{what}, {share:.0%}"),
        )
    rows = [
        (
            file.file,
            f"{', '.join(file.outputs[:4])}{' ...' if len(file.outputs) > 4 else ''}"
            + ("" if file.error is None else f"; within {file.error:.1g} of torch"),
        )
        for file in files
    ]
    total = sum(path.stat().st_size for path in out.iterdir())
    show_rows([("folder", f"{out}, {size(total)}"), *rows, ("list", str(out / "export.json"))])


@app.command()
def tensorrt(
    weights: WeightsOption = AUTO,
    device: DeviceOption = AUTO,
) -> None:
    """Build TensorRT engines for this GPU, once.

    Needs an NVIDIA GPU and the onnxruntime build that has TensorRT: pip install onnxruntime-gpu tensorrt. Engines are
    kept in the cache by GPU and version and built anew when either changes; `--backend auto` takes them from then on.
    Building takes minutes.
    """
    from personalive.runtime.load import load_engine  # noqa: PLC0415

    with progress("building") as show:
        engine = load_engine(
            weights,
            device=device,
            dtype="float16",
            backend="tensorrt",
            progress=loading(show),
            preparing=preparing(show),
        )
    show_rows([("engines", f"{engine.backend.name} on {engine.device}"), ("next", "personalive animate, or serve")])
