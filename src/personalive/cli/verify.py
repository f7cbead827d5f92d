"""``personalive verify``: content credentials of a file in plain words, and whether it was changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personalive.cli.console import show_rows
from personalive.errors import InputError

EPILOG = """
\b
Examples:
  personalive verify video.mp4
  personalive verify recording.webm                     reads recording.c2pa beside it

Exit code 0 means that the file is what was signed, by whomever; 1 that it was changed, or has no credentials.
"""

_SOURCES = {  # IPTC digital source types
    "trainedAlgorithmicMedia": "a model generated it",
    "compositeWithTrainedAlgorithmicMedia": "a model made it from recorded media",
    "compositeSynthetic": "a composition with generated parts",
    "algorithmicMedia": "a program without a trained model generated it",
    "digitalCapture": "a camera or microphone recorded it",
    "digitalCreation": "a person made it with a program",
}


def verify(file: Annotated[Path, typer.Argument(metavar="FILE", help="Video or image.")]) -> None:
    """Tell what FILE says of its making, and whether it was changed since."""
    from personalive.media.credentials import SIDECAR, read_credentials  # noqa: PLC0415 (imports PyAV)

    found = read_credentials(file)
    if found is None:
        raise InputError(
            f"{file}: has no content credentials, neither inside nor in {file.with_suffix(SIDECAR).name} beside it: "
            "it was made without them, or they were removed"
        )
    rows = [
        ("file", str(file)),
        ("credentials", str(found.sidecar or "inside")),
        ("program", found.program),
        ("model", found.model or ""),
        ("made by", _SOURCES.get(found.source or "", found.source or "")),
        ("signed by", f"{found.signer or 'no name'} (whoever holds that key; the name is not checked)"),
        ("unchanged", "yes" if found.intact else "no"),
    ]
    show_rows([row for row in rows if row[1]])
    if not found.intact:
        problems = "; ".join(found.problems) or "no reason is given"
        raise InputError(f"{file}: is not what was signed: the file or its credentials were changed ({problems})")
