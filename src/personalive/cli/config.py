"""Defaults of the command line (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CliConfig:
    """Output of the commands, and the folder of the demo."""

    plain_interval_s: float = 10.0  # between two progress lines where there is no terminal to draw a bar in
    demo_folder: str = "personalive-demo"
    docs_width: int = 100  # columns of the help texts in docs/cli.md
