"""The folder of videos and the folder of the set: what is found, what may be written, what is already done."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalive.errors import InputError, OutputError
from personalive.media.paths import remove, sample_digest, write_whole
from personalive.training.data.prepare.clip_file import CLIPS, SIZES, clip_files
from personalive.training.data.prepare.config import PrepareConfig

FORMAT, VERSION = "personalive training set", 1
RECORDS = "videos"  # folder inside the set, beside the clips
SETTINGS_FILE, INDEX_FILE = "set.json", "index.jsonl"
_TEMPORARY = ".personalive-"


@dataclass(frozen=True, slots=True)
class Video:
    """One video to prepare: its place, its path below the folder of videos, a name for files, its content."""

    path: Path
    name: str
    key: str
    size_bytes: int
    fingerprint: str


def find_videos(folder: Path, config: PrepareConfig) -> tuple[list[Video], int]:
    """All videos below ``folder`` in the order of their names, and how many other files there are.

    Hidden files and folders are left out.

    Raises:
        InputError: no such folder, or no video in it.
    """
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give the folder that holds the videos")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; check the name")
    files = sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    chosen = [path for path in files if path.suffix.lower() in config.suffixes]
    if not chosen:
        raise InputError(f"{folder}: holds no video ({', '.join(config.suffixes[:4])}, ...); check the folder")
    return [_video(path, path.relative_to(folder).as_posix()) for path in chosen], len(files) - len(chosen)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _video(path: Path, name: str) -> Video:
    slug = re.sub(r"[^a-z0-9]+", "_", name.rpartition(".")[0].lower()).strip("_")[-40:] or "video"
    key = f"{slug}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    shown = name.encode("utf-8", "replace").decode("utf-8")  # that any JSON reader takes
    with suppress(OSError):  # opening it as a video will say why
        status = path.stat()
        if stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            return Video(path, shown, key, status.st_size, sample_digest(path))
    return Video(path, shown, key, 0, "unreadable")


# --- the set ------------------------------------------------------------------------------------------------


def open_set(out: Path, videos: Path, config: PrepareConfig) -> None:
    """Make ``out`` a set with these settings, or find that it is one.

    Raises:
        OutputError: it is inside the folder of videos, holds other things, is a set with other settings, or
            cannot be written.
    """
    if out.resolve().is_relative_to(videos.resolve()):
        raise OutputError(f"{out}: is inside {videos}; choose a folder beside it")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; choose another folder")
    with _writable(out):
        if (out / SETTINGS_FILE).exists():
            _check_settings(out, config.settings)
        elif out.exists() and not all(entry.name.startswith(_TEMPORARY) for entry in out.iterdir()):
            raise OutputError(f"{out}: holds other things; choose a new or an empty folder")
        for folder in (out / CLIPS, out / RECORDS):
            folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(out)
    write_whole(out / SETTINGS_FILE, json.dumps(_header(config), indent=1) + "\n")


def _header(config: PrepareConfig) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "settings": config.settings}


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from None


def _check_settings(out: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads((out / SETTINGS_FILE).read_text(encoding="utf-8"))
        format_, version, settings = found["format"], found["version"], dict(found["settings"])
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{out}: its {SETTINGS_FILE} is damaged; choose a new folder") from None
    if (format_, version) != (FORMAT, VERSION):
        raise OutputError(f"{out}: holds a set of version {version}, not {VERSION}; choose a new folder")
    for name, value in wanted.items():
        if settings.get(name) != value:
            begun = f"{name.removesuffix('_px').replace('_', ' ')} {settings.get(name)}, not {value}"
            raise OutputError(f"{out}: was begun with {begun}; use the same options or a new folder")


def remove_temporary(out: Path) -> None:
    """Delete what interrupted work left behind; files that cannot be deleted stay."""
    for path in out.rglob(f"{_TEMPORARY}*"):
        remove(path)


def read_record(out: Path, key: str) -> dict[str, Any] | None:
    """The record of a video whose clips are all there, else None."""
    try:
        record = json.loads((out / RECORDS / f"{key}.json").read_text(encoding="utf-8"))
        for clip in record["clips"]:
            if [path.stat().st_size for path in clip_files(out, clip["clip"])] != [clip[size] for size in SIZES]:
                return None
        return record if {"video", "fingerprint", "frames", "drops", "warnings"} <= record.keys() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(out: Path, key: str) -> None:
    """Delete the record of a video and its clips, if there are any.

    Raises:
        OutputError: a file cannot be deleted.
    """
    with _writable(out):
        (out / RECORDS / f"{key}.json").unlink(missing_ok=True)
        for path in (out / CLIPS).glob(f"{key}-[0-9]*"):
            path.unlink(missing_ok=True)


def all_records(out: Path) -> list[dict[str, Any]]:
    """The records of all finished videos, those of earlier runs included, in the order of their names."""
    keys = [path.stem for path in (out / RECORDS).glob("*.json")]
    records = [record for key in keys if (record := read_record(out, key)) is not None]
    return sorted(records, key=lambda record: record["video"])


def write_index(out: Path, config: PrepareConfig, records: list[dict[str, Any]]) -> None:
    """One line about the set, then one line per clip."""
    clips = [clip for record in records for clip in record["clips"]]
    lines = [json.dumps(entry) for entry in (_header(config) | {"clips": len(clips)}, *clips)]
    write_whole(out / INDEX_FILE, "\n".join(lines) + "\n")
