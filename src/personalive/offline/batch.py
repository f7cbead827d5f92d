"""Batch: many videos by one engine; what fails is reported at the end, and what is made is not made again."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from personalive.engine.base import BaseEngine
from personalive.errors import OutputError, PersonaLiveError
from personalive.media.paths import write_whole
from personalive.offline.animate import animate
from personalive.offline.config import BatchConfig
from personalive.offline.manifest import BatchRow
from personalive.offline.options import AnimateReport, options_to_json
from personalive.offline.storage import Url, modified_ns, place_of, read_place, renamed
from personalive.progress import Progress

_LOG = logging.getLogger(__name__)
RowProgress = Callable[[int, BatchRow, Progress], None]  # (number of the row, from 1; the row; its frames)


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """Outcome of a row. ``kept``: an earlier run has made it. ``problem``: one line, of a failed one."""

    row: BatchRow
    state: Literal["made", "kept", "failed"]
    report: AnimateReport | None = None  # of a made one
    problem: str | None = None


def by_portrait(rows: Sequence[BatchRow]) -> list[BatchRow]:
    """Rows with those of one portrait together, else in their order."""
    first = {row.portrait: number for number, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: first[row.portrait])


def run_batch(
    rows: Sequence[BatchRow],
    load: Callable[[], BaseEngine],
    weights: str,
    *,
    resume: bool = True,
    progress: RowProgress | None = None,
) -> list[RowResult]:
    """Make the video of every row, in the order of ``by_portrait``, as ``animate`` makes one.

    Args:
        load: loads the engine; called once, and only if there is a video to make.
        weights: name of the model, as records give it (see ``weights_name``).
        resume: keep what is made already: see ``is_made``.
        progress: called as ``animate`` calls its own.

    Returns:
        One result per row, in the order in which they were made.

    Raises:
        PersonaLiveError: the engine cannot be loaded. A row that fails is a result.
        KeyboardInterrupt: with a note of how far it is.
    """
    engine: BaseEngine | None = None
    results: list[RowResult] = []
    try:
        for number, row in enumerate(by_portrait(rows), start=1):
            if resume and is_made(row, weights):
                results.append(RowResult(row=row, state="kept"))
                continue
            engine = engine or load()
            results.append(make_row(row, engine, None if progress is None else _of_row(progress, number, row)))
    except KeyboardInterrupt as stop:
        note_stop(stop, results, len(rows))
        raise
    return results


def note_stop(stop: KeyboardInterrupt, results: Iterable[RowResult], total: int) -> None:
    """Note how far an interrupted batch of ``total`` rows is."""
    made = sum(result.state != "failed" for result in results)
    stop.add_note(f"{made} of {total} videos are made; the same command makes the rest")


def is_made(row: BatchRow, weights: str) -> bool:
    """Tell whether the video is there, with a record of these inputs, options and weights, and newer than its inputs.

    Device, dtype, backend and decoder are not compared, nor the time of an input whose storage tells none.
    """
    record = row.output.with_suffix(".json")
    try:
        found = json.loads(read_place(record, BatchConfig.max_record_bytes))
        made = modified_ns(record) or 0
        if any((modified_ns(place) or 0) > made for place in (row.portrait, row.driving)):
            return False
        for place in row.writes:
            modified_ns(place)  # it is there
    except (OSError, ValueError):
        return False
    wanted: dict[str, Any] = {
        "inputs": {"portrait": str(row.portrait), "driving": str(row.driving)},
        "options": options_to_json(asdict(row.options)),
        "weights": weights,
    }
    return isinstance(found, dict) and all(found.get(name) == value for name, value in wanted.items())


def make_row(row: BatchRow, engine: BaseEngine, progress: Callable[[Progress], None] | None) -> RowResult:
    """Make the video of one row; whatever fails is the result."""
    names: dict[str, str] = {}
    try:
        with _local_copy(row) as (local, names):
            _make_folder(Path(str(local.output)).parent)
            files = (Path(str(place)) for place in (local.portrait, local.driving, local.output))
            report = animate(*files, engine=engine, progress=progress, **asdict(local.options))
    except PersonaLiveError as error:
        return RowResult(row=row, state="failed", problem=f"{row.where}: {renamed(str(error), names)}")
    except Exception as error:  # noqa: BLE001 (the others are made all the same)
        _LOG.debug("%s", row.where, exc_info=True)
        text = " ".join(str(error).split())
        return RowResult(row=row, state="failed", problem=f"{row.where}: unexpected {type(error).__name__}: {text}")
    return RowResult(row=row, state="made", report=AnimateReport(**renamed(asdict(report), names)))


@contextmanager
def _local_copy(row: BatchRow) -> Iterator[tuple[BatchRow, dict[str, str]]]:
    """The row with paths in the place of URLs: inputs fetched, results sent at the end, the record last.

    Yields:
        The row, and the URLs by those paths.

    Raises:
        InputError, OutputError: a file cannot be fetched or sent.
    """
    sheet = row.options.contact_sheet
    places = {"portrait": row.portrait, "driving": row.driving, "output": row.output}
    places |= {"sheet": place_of(sheet, Path())} if sheet else {}
    urls = {name: place for name, place in places.items() if isinstance(place, Url)}
    if not urls:
        yield row, {}
        return
    with tempfile.TemporaryDirectory(prefix="personalive-") as folder:
        paths = {name: Path(folder) / f"{name}{url.suffix}" for name, url in urls.items()}
        for name in urls.keys() & {"portrait", "driving"}:
            urls[name].fetch(paths[name])
        local = replace(row, **{name: paths[name] for name in paths.keys() - {"sheet"}})
        if "sheet" in paths:
            local = replace(local, options=replace(row.options, contact_sheet=str(paths["sheet"])))
        names = {str(path): urls[name].text for name, path in paths.items()}
        yield local, names
        record = Path(str(local.output)).with_suffix(".json")
        write_whole(record, json.dumps(renamed(json.loads(record.read_bytes()), names), indent=2) + "\n")
        for name in ("sheet", "output"):
            if name in urls:
                urls[name].send(paths[name])
        if "output" in urls:
            urls["output"].with_suffix(".json").send(record)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another output") from None


def _of_row(progress: RowProgress, number: int, row: BatchRow) -> Callable[[Progress], None]:
    return lambda now: progress(number, row, now)
