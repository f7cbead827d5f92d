"""Output of the commands: error lines, summaries, and progress as a bar or, without a terminal, as plain lines."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from personalive.cli.config import CliConfig
from personalive.progress import Meter, Progress, clock


class _Patient:
    """Stream of text whose reader may leave: what is printed then is lost, and the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, as far as somebody reads."""
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, as far as somebody reads."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams() -> None:
    """Make printing independent of who reads: closed streams, readers that leave, encodings that lack a letter."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by whoever started the program: no file of ours may get its number
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as it runs)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Patient(stream))


def one_line(text: str) -> str:
    """``text`` with every run of white space as one blank."""
    return " ".join(text.split())


def error_line(text: str) -> None:
    """Print one line on stderr."""
    print(one_line(text), file=sys.stderr)


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Labels and values in two columns on stdout; lines are never wrapped, so that paths can be copied."""
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        print(f"{label:<{width}}  {value}".rstrip())


# --- progress -------------------------------------------------------------------------------------------------------


class Display:
    """Progress of one command. Its methods fit the callbacks of the library."""

    def __init__(self, draw: Callable[[Progress], None]) -> None:
        self.show = draw
        self._reading: Meter | None = None

    def loading(self, done_bytes: int, total_bytes: int) -> None:
        """Display how much of a model is read: ``progress`` of ``load_engine``."""
        if self._reading is None or self._reading.total != total_bytes:
            self._reading = Meter(total_bytes, "bytes", label="loading")
        self.show(self._reading.at(done_bytes))

    def preparing(self, backend: str, share: float) -> None:
        """Display how much of a backend's programs is made: ``preparing`` of ``load_engine``."""
        self.step(f"preparing {backend} for this model, once", share)

    def step(self, label: str, share: float) -> None:
        """Display the share done of a step without units."""
        self.show(Progress(share, 1.0, unit="", label=label))


@contextmanager
def progress(command: str) -> Iterator[Display]:
    """Display of progress on stderr: a bar on a terminal, else a plain line now and then."""
    with _bar(command) if sys.stderr.isatty() else _plain(command) as draw:
        yield Display(draw)


@contextmanager
def _bar(command: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console  # noqa: PLC0415 (keeps --help fast)
    from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(command, total=None, text="loading")
        yield lambda now: bars.update(task, completed=now.done, total=now.total, text=describe(now))


@contextmanager
def _plain(command: str) -> Iterator[Callable[[Progress], None]]:
    printed = time.monotonic()

    def draw(now: Progress) -> None:
        nonlocal printed
        if time.monotonic() - printed >= CliConfig.plain_interval_s:
            printed = time.monotonic()
            print(f"{command}: {describe(now)}", file=sys.stderr, flush=True)

    yield draw


def describe(now: Progress) -> str:
    """One line such as ``120 of 500 frames, 8.1 per second, 0:47 left``."""
    total = now.total if now.total is None or now.done <= now.total else None  # headers of videos miscount
    if now.unit == "bytes":
        amount = size(now.done) + ("" if total is None else f" of {size(total)}")
    elif now.unit:
        amount = f"{now.done:.0f}{'' if total is None else f' of {total:.0f}'} {now.unit}"
    else:
        amount = f"{now.done:.0%}"
    parts = [f"{now.label} {amount}".strip(), now.note]
    if now.rate:
        parts.append(f"{size(now.rate) if now.unit == 'bytes' else f'{now.rate:.3g}'} per second")
    if now.left_s is not None:
        parts.append(f"{clock(now.left_s)} left")
    return ", ".join(part for part in parts if part)


def size(count: float) -> str:
    """Number of bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
