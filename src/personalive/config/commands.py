"""What the commands print and draw (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ContactSheetConfig:
    """The picture that shows a whole film at a glance."""

    columns: int = 8  # moments of the film
    cell_px: int = 192  # side of one picture
    gap_px: int = 6
    background_grey: int = 255


@dataclass(frozen=True, kw_only=True)
class FilmSizeConfig:
    """Limits of a film's side where another than the model's is asked for."""

    min_side_px: int = 32
    max_side_px: int = 4096  # three side by side still fit what H.264 players accept


@dataclass(frozen=True, kw_only=True)
class CliConfig:
    """What the commands print and where the demo goes."""

    plain_interval_s: float = 10.0  # between two progress lines where there is no terminal to draw a bar in
    demo_folder: str = "personalive-demo"
    docs_width: int = 100  # columns of the help texts in docs/cli.md
