"""``personalive weights``: download, check and conversion of model weights."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.console import progress, show_rows, size
from personalive.config import TAESD, WEIGHTS_ENV, default_decoder_folder, default_weights_folder
from personalive.errors import CheckpointError, DownloadError

if TYPE_CHECKING:
    from personalive.checkpoints.check import FolderReport, PartReport

LICENCE_NOTE = (
    "The released weights are for academic research only: they descend from weights under CC BY-NC, which forbids "
    "commercial use. Animate only people who agreed to it."
)

app = typer.Typer(
    help="Download, check and convert model weights.",
    epilog="""
\b
Examples:
  personalive weights download                    to the default folder, where every command finds them
  personalive weights download ~/weights --endpoint https://hf-mirror.example
  personalive weights download --from modelscope
  personalive weights download --decoder taesd    a small decoder beside them, 10 MB
  personalive weights check ~/weights
  personalive weights convert ~/weights ~/weights-half
""",
    rich_markup_mode=None,
)


class SmallDecoder(StrEnum):
    """Decoders that can be fetched."""

    TAESD = TAESD


class Publisher(StrEnum):
    """Publishers of the weights."""

    HUB = "hub"
    MODELSCOPE = "modelscope"


class StoredDtype(StrEnum):
    """Dtypes that weights can be stored in."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


_Folder = Annotated[str, typer.Argument(metavar="DIR", help="A weights folder, or tiny for the bundled model.")]


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def download(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="Folder to download to.", show_default="~/.local/share/personalive/weights"
        ),
    ] = None,
    decoder: Annotated[
        SmallDecoder | None,
        typer.Option(
            help="Download this small decoder instead, for --decoder of other commands: 10 MB, MIT licence.",
            show_default="none",
        ),
    ] = None,
    publisher: Annotated[
        Publisher, typer.Option("--from", help="The Hugging Face hub, or ModelScope where that is nearer.")
    ] = Publisher.HUB,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A mirror of it.", show_default="HF_ENDPOINT, else the publisher's own"),
    ] = None,
) -> None:
    """Download the released weights (12 GB), or a small decoder. Run it again to resume.

    Every file is checked against its published hash. The weights are for academic research only.
    """
    from personalive.checkpoints.download import download_weights, missing_sources  # noqa: PLC0415 (keeps --help fast)
    from personalive.checkpoints.sources import RELEASED, SMALL_DECODER  # noqa: PLC0415

    if decoder is None:
        print(LICENCE_NOTE)
    target = folder or (default_decoder_folder() if decoder else default_weights_folder())
    sources = SMALL_DECODER if decoder else RELEASED
    try:
        with progress("fetching") as display:
            files = download_weights(
                target, endpoint=endpoint, publisher=publisher.value, sources=sources, progress=display.show
            )
    except (KeyboardInterrupt, DownloadError) as stop:
        if isinstance(stop, KeyboardInterrupt):
            stop.add_note(f"what was fetched is kept in {target}; the same command resumes")
        if missing := missing_sources(target, sources, publisher.value):
            show_rows([("by hand", f"{address} -> {path}") for address, path in missing])
            stop.add_note("files that are fetched by hand, as listed, need not be downloaded")
        raise
    show_rows(
        [
            (
                "decoder" if decoder else "weights",
                f"{target}, {len(files)} files, {size(sum(path.stat().st_size for path in files))}",
            ),
            ("next", f"personalive animate PORTRAIT DRIVING{_usage(target, decoder)}"),
        ]
    )


def _usage(target: Path, decoder: SmallDecoder | None) -> str:
    """Return the options that select the files in ``target``."""
    if decoder is not None:
        return f" --decoder {decoder.value if target == default_decoder_folder() else target}"
    return "" if target == default_weights_folder() else f" --weights {target} (or set {WEIGHTS_ENV})"


@app.command()
def check(folder: _Folder) -> None:
    """Check that every weight file of DIR fits its network.

    Reads shapes only: takes seconds and little memory.
    """
    from personalive.checkpoints.check import check_folder  # noqa: PLC0415 (imports torch)

    report = check_folder(folder)
    show_rows([(part.part, _described(part)) for part in report.parts])
    if not report.ok:
        raise CheckpointError(_wrong(report))
    print(f"{report.root}: complete, every network can be loaded")


@app.command()
def convert(
    source: _Folder,
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder; must not exist yet.")],
    dtype: Annotated[StoredDtype, typer.Option(help="Dtype of the copy.")] = StoredDtype.FLOAT16,
) -> None:
    """Copy DIR to OUT in half precision.

    All files become safetensors: half the disk, quicker to load.
    """
    from personalive.checkpoints.convert import convert_folder  # noqa: PLC0415 (imports torch)
    from personalive.runtime.load import DTYPES  # noqa: PLC0415

    with progress("converting") as display:
        written = convert_folder(source, destination, dtype=DTYPES[dtype.value], progress=display.show)
    bytes_ = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    show_rows(
        [
            ("weights", f"{written}, {size(bytes_)} in {dtype.value}"),
            ("next", f"personalive animate PORTRAIT DRIVING --weights {written}"),
        ]
    )


def _described(part: PartReport) -> str:
    if part.problem is not None:
        return "cannot be loaded" if part.files else "missing"
    dtypes = " and ".join(part.dtypes)
    content = f"{part.tensors} tensors, {part.parameters / 1e6:.1f} M values in {dtypes}"
    return ", ".join(filter(None, ["ok", size(part.size_bytes), content, part.difference.warning]))


def _wrong(report: FolderReport) -> str:
    """Return one line: the first problem, and how many more there are."""
    from personalive.checkpoints.folder import fetch_hint  # noqa: PLC0415 (keeps --help fast)

    broken = [part for part in report.parts if not part.ok]
    first = report.problem or next((f"{part.part}: {part.problem}" for part in broken), None)
    if first is None:
        first = f"{', '.join(report.missing_files)} missing: {fetch_hint(report.root)}"
    more = f" (and {len(broken) - 1} more of {len(report.parts)} networks)" if len(broken) > 1 else ""
    where = "" if str(report.root) in first else f"{report.root}: "
    return f"{where}{first}{more}"
