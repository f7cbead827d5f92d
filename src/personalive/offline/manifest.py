"""Manifest of a batch: which videos to make, from a CSV or JSONL file or from two folders."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from personalive.errors import InputError, PersonaLiveError
from personalive.media.paths import check_input
from personalive.offline.config import BatchConfig
from personalive.offline.options import AnimateOptions
from personalive.offline.storage import Place, Url, folder_of, place_of, read_place, resolved

_FILES = ("portrait", "driving", "output")
_KEYFRAMES = "keyframes"  # false is an infinite threshold, as in the command
_FIELDS = {name: kind for name, kind in get_type_hints(AnimateOptions).items() if name != "center_fallback"}
# "start" is start_s, "size" is size_px: columns have the names of the command's options
_COLUMNS = {name.removesuffix("_s").removesuffix("_px"): name for name in _FIELDS} | {_KEYFRAMES: _KEYFRAMES}
_SWITCHES = {name for name, kind in _FIELDS.items() if kind is bool} | {_KEYFRAMES}
_KINDS = {name: TypeAdapter(kind) for name, kind in (_FIELDS | {_KEYFRAMES: bool}).items()}


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """One video of a batch; places are URLs or absolute paths, so that a row is the same from any folder."""

    where: str  # "line 3" of a manifest, or the two names of a pair
    portrait: Place
    driving: Place
    output: Place
    options: AnimateOptions

    @property
    def writes(self) -> list[Place]:
        """Files that the video will replace: itself, its record, its contact sheet."""
        sheet = self.options.contact_sheet
        return [self.output, self.output.with_suffix(".json"), *([place_of(sheet, Path())] if sheet else [])]


@dataclass(frozen=True)
class Batch:
    """Rows that can be tried, and for those that cannot be the reason in one line each."""

    rows: list[BatchRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_manifest(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Batch:
    """Rows of a manifest: a .csv with a header, or a .jsonl with an object per line.

    Columns are ``portrait``, ``driving``, ``output`` and any option of ``animate`` by its name (``size``,
    ``head-motion``, ``keyframes``, ...). An empty cell is the default. Portraits and clips are looked for from the
    manifest's folder; URLs stay as they are.

    Args:
        path: of the manifest, or its URL.
        folder: where outputs go, a path or URL, by default the manifest's own folder. Without an output, it is
            ``DRIVING_by_PORTRAIT.mp4``.
        defaults: fields of ``AnimateOptions`` for rows that do not say otherwise.

    Raises:
        InputError: no readable manifest, one without rows, or bad defaults. The reason of a bad row is a problem.
    """
    AnimateOptions(**(defaults or {}))  # refuses once what no row could be made with
    file = place_of(str(path), Path()) if "://" in str(path) else check_input(path)
    home = file.parent if isinstance(file, Url) else resolved(file).parent
    target = home if folder is None else folder_of(folder)
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if file.suffix.lower() not in readers:
        raise InputError(f"{file}: should be a .csv or .jsonl manifest; or give portraits and clips")
    batch, count = Batch(), 0
    for number, values in readers[file.suffix.lower()](_text(file), file):
        count += 1
        if count > BatchConfig.max_rows:
            raise InputError(f"{file}: has more than {BatchConfig.max_rows} rows; split it")
        try:
            batch.rows.append(_row(f"line {number}", values, home, target, defaults or {}))
        except PersonaLiveError as error:
            batch.problems.append(f"line {number}: {error}")
    if not count:
        raise InputError(f"{file}: has no rows; give a line per video: portrait, driving, output")
    return _without_clashes(batch, {file if isinstance(file, Url) else resolved(file)})


def pair_folders(
    portraits: str | os.PathLike[str],
    driving: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    defaults: Mapping[str, Any] | None = None,
) -> Batch:
    """Every portrait with every clip or motion file, each a folder's files in the order of their names, or one file.

    Raises:
        InputError: a folder is missing, or holds no such file.
    """
    config, target = BatchConfig(), folder_of(folder)
    stills = _files(portraits, config.portrait_suffixes)
    clips = _files(driving, config.driving_suffixes)
    options = AnimateOptions(**(defaults or {}))
    rows = [
        BatchRow(
            where=f"{still.name} with {clip.name}",
            portrait=still,
            driving=clip,
            output=place_of(_default_output(still, clip), target),
            options=options,
        )
        for still in stills
        for clip in clips
    ]
    return _without_clashes(Batch(rows), set())


# --- reading --------------------------------------------------------------------------------------------------------


def _text(file: Place) -> str:
    limit = BatchConfig.max_bytes
    try:
        content = read_place(file, limit)
        if len(content) > limit:
            raise InputError(f"{file}: is larger than {limit // 1_000_000} MB; split it")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not text in UTF-8; save it as such") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None


def _csv_rows(text: str, file: Place) -> Iterator[tuple[int, dict[str, Any]]]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of many countries write semicolons
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if lacking := [name for name in _FILES[:2] if name not in names]:
            raise InputError(f"{file}: its first line names no {' and no '.join(lacking)}; name the columns there")
        reader.fieldnames = names
        for values in reader:
            yield reader.line_num, values
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num} is no CSV ({error}); check its quotes") from None


def _json_rows(text: str, file: Place) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _row(where: str, values: Any, home: Place, folder: Place, defaults: Mapping[str, Any]) -> BatchRow:
    if not isinstance(values, dict):
        raise InputError('is no JSON object; write {"portrait": "me.jpg", "driving": "clip.mp4"}')
    if None in values:
        raise InputError("has more cells than the first line names columns; check its delimiters")
    given = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
    given = {name: value for name, value in given.items() if value not in (None, "")}
    paths = {name: _path(name, given.pop(name)) for name in _FILES if name in given}
    if lacking := [name for name in _FILES[:2] if name not in paths]:
        raise InputError(f"has no {' and no '.join(lacking)}")
    portrait, driving = (place_of(paths[name], home) for name in _FILES[:2])
    output = paths.get("output", _default_output(portrait, driving))
    options = dict(defaults) | _options(given)
    if sheet := options.get("contact_sheet"):
        options["contact_sheet"] = str(place_of(sheet, folder))
    return BatchRow(
        where=where,
        portrait=portrait,
        driving=driving,
        output=place_of(output, folder),
        options=AnimateOptions(**options),
    )


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} {value!r}: give a path")
    return value


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for column, value in given.items():
        name = str(column).lower().replace("-", "_")
        name = _COLUMNS.get(name, name)
        if name not in _KINDS:
            raise InputError(f"{column!r} is no option of animate; use {', '.join((*_FILES, *_COLUMNS))}")
        try:
            if isinstance(value, bool) and name not in _SWITCHES:
                raise InputError(f"{column} {value}: should not be true or false")  # pydantic takes them for 1 and 0
            options[name] = _KINDS[name].validate_python(value)
        except ValidationError as error:
            raise InputError(f"{column} {value!r}: {error.errors()[0]['msg'].lower()}") from None
    if not options.pop(_KEYFRAMES, True):
        if "keyframe_threshold" in options:
            raise InputError("keyframe_threshold means nothing without keyframes; leave one out")
        options["keyframe_threshold"] = math.inf
    return options


def _files(where: str | os.PathLike[str], suffixes: tuple[str, ...]) -> list[Path]:
    path = resolved(Path(where))
    if not path.is_dir():
        return [check_input(path)]
    try:
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None
    if not found:
        raise InputError(f"{where}: holds no file that fits ({', '.join(suffixes[:4])}, ...); check the folder")
    return found


def _default_output(portrait: Place, driving: Place) -> str:
    return f"{driving.stem}_by_{portrait.stem}.mp4"


def _without_clashes(batch: Batch, kept: set[Place]) -> Batch:
    """The batch without rows that would replace an input of any row, or what another row writes."""
    inputs = kept | {path for row in batch.rows for path in (row.portrait, row.driving)}
    rows, problems, owners = list[BatchRow](), list(batch.problems), dict[Place, str]()
    for row in batch.rows:
        if clash := next((path for path in row.writes if path in inputs), None):
            problems.append(f"{row.where}: would replace {clash}, which the batch reads; choose another output")
        elif clash := next((path for path in row.writes if path in owners), None):
            problems.append(f"{row.where}: would replace {clash} of {owners[clash]}; choose another output")
        else:
            rows.append(row)
            owners |= dict.fromkeys(row.writes, row.where)
    return Batch(rows, problems)
