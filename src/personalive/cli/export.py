"""``personalive export``: the networks as files for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personalive.cli.console import progress, show_rows, size
from personalive.cli.options import WeightsOptions, with_groups

app = typer.Typer(
    help="Write the networks as files that other programs run.",
    epilog="""
\b
Examples:
  personalive export onnx nets --weights tiny          checked with onnxruntime
  personalive export onnx nets --dtype float16 --device cuda
  personalive export tensorrt                          engines for this GPU, for --backend tensorrt
""",
    rich_markup_mode=None,
)


class ExportDtype(StrEnum):
    """Dtypes that ONNX runtimes compute in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
@with_groups
def onnx(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    model: WeightsOptions = WeightsOptions(),
    dtype: Annotated[ExportDtype, typer.Option(help="Dtype; float16 is checked on CUDA only.")] = ExportDtype.FLOAT32,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Run every file with onnxruntime and compare it with PyTorch.")
    ] = True,
) -> None:
    """Write the networks as ONNX files.

    call.onnx is one whole step: noisy latents in, finished frames out, with the reference's keys and values as named
    inputs for any number of keyframes. The other files are the calls around it: encoding a driver's motion, encoding
    a portrait, encoding a pose, decoding. export.json lists inputs, shapes and the difference to PyTorch.
    """
    from personalive.runtime.export import export_onnx  # noqa: PLC0415 (imports torch)
    from personalive.runtime.load import load_diffusion_engine  # noqa: PLC0415

    with progress("exporting") as display:
        engine = load_diffusion_engine(
            model.weights, device=model.device, dtype=dtype.value, backend="eager", progress=display.loading
        )
        files = export_onnx(engine.backend, out, check=check, on_progress=display.step)
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
@with_groups
def tensorrt(
    model: WeightsOptions = WeightsOptions(),
) -> None:
    """Build TensorRT engines for this GPU, once.

    This project has never run TensorRT: report what you find. Needs an NVIDIA GPU and the onnxruntime build that has
    TensorRT: pip install onnxruntime-gpu tensorrt. Engines are cached by GPU and version and built again when either
    changes. Building takes minutes.
    """
    from personalive.runtime.load import load_diffusion_engine  # noqa: PLC0415

    with progress("building") as display:
        engine = load_diffusion_engine(
            model.weights,
            device=model.device,
            dtype="float16",
            backend="tensorrt",
            progress=display.loading,
            preparing=display.preparing,
        )
    show_rows(
        [
            ("engines", f"{engine.backend.name} on {engine.device}"),
            ("next", "personalive animate PORTRAIT DRIVING --dtype float16 --backend tensorrt"),
        ]
    )
