"""What the commands print: error lines, summaries, and progress as a bar or, without a terminal, as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from personalive.cli.config import CliConfig

Show = Callable[[float, float | None, str], None]  # (done, total or None where unknown, what to say)


def one_line(text: str) -> str:
    """``text`` with every run of white space as one blank."""
    return " ".join(text.split())


def error_line(text: str) -> None:
    """One line on stderr."""
    print(one_line(text), file=sys.stderr)


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Labels and values in two columns on stdout; lines are never wrapped, so that paths can be copied."""
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        print(f"{label:<{width}}  {value}".rstrip())


@contextmanager
def progress(label: str) -> Iterator[Show]:
    """A function that shows how far the work is: a bar on a terminal, else a plain line now and then, on stderr."""
    with _bar(label) if sys.stderr.isatty() else _plain(label) as show:
        yield show


@contextmanager
def _bar(label: str) -> Iterator[Show]:
    from rich.console import Console  # noqa: PLC0415 (keeps --help fast)
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, text="loading")

        def show(done: float, total: float | None, text: str) -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield show


@contextmanager
def _plain(label: str) -> Iterator[Show]:
    said = time.monotonic()

    def show(done: float, total: float | None, text: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= CliConfig.plain_interval_s:
            said = now
            print(f"{label}: {text}", file=sys.stderr, flush=True)

    yield show


def loading(show: Show) -> Callable[[int, int], None]:
    """Shows how far a model is read: what ``load_engine`` calls with the bytes read and the bytes in all."""
    begun = time.monotonic()

    def read(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - begun, 1e-9)
        left = clock((total - done) / rate) if rate else "?"
        show(done, total, f"loading {size(done)} of {size(total)}, {size(rate)} per second, {left} left")

    return read


def preparing(show: Show) -> Callable[[str, float], None]:
    """Shows how far programs are made: what ``load_engine`` calls with a backend's name and the share done."""

    def made(name: str, share: float) -> None:
        show(share, 1.0, f"preparing {name} for this model, once: {share:.0%}")

    return made


def clock(seconds: float) -> str:
    """Seconds as ``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """A number of bytes for reading, in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
