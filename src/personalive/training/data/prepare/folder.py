"""The folder of videos and the folder of the set: what is found, what may be written, what is already done."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from personalive.errors import InputError, OutputError
from personalive.media.paths import sample_digest, write_whole
from personalive.training.data.prepare.clip_file import FILM_SUFFIX, TENSOR_SUFFIX
from personalive.training.data.prepare.config import PrepareConfig

FORMAT, VERSION = "personalive training set", 1
CLIPS, RECORDS = "clips", "videos"  # folders inside the set
SETTINGS_FILE, INDEX_FILE = "set.json", "index.jsonl"
_TEMPORARY = ".personalive-"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that decide the images of a set; one set has one of each."""

    size_px: int
    fps: int
    framing_scale: float
    min_clip_s: float
    detector: str


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
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            return Video(path, _text(name), key, 0, "unreadable")
        return Video(path, _text(name), key, status.st_size, sample_digest(path))
    except OSError:  # opening it as a video will say why
        return Video(path, _text(name), key, 0, "unreadable")


def _text(name: str) -> str:
    """A file name that any JSON reader takes."""
    return name.encode("utf-8", "replace").decode("utf-8")


# --- the set ------------------------------------------------------------------------------------------------


def open_set(out: Path, videos: Path, settings: Settings) -> None:
    """Make ``out`` a set with these settings, or find that it is one.

    Raises:
        OutputError: it is inside the folder of videos, holds other things, is a set with other settings, or
            cannot be written.
    """
    if out.resolve().is_relative_to(videos.resolve()):
        raise OutputError(f"{out}: is inside {videos}; choose a folder beside it")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; choose another folder")
    header = {"format": FORMAT, "version": VERSION, "settings": asdict(settings)}
    try:
        if (out / SETTINGS_FILE).exists():
            _check_settings(out, header)
        elif out.exists() and not all(entry.name.startswith(_TEMPORARY) for entry in out.iterdir()):
            raise OutputError(f"{out}: holds other things; choose a new or an empty folder")
        for folder in (out / CLIPS, out / RECORDS):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_temporary(folder)
        _remove_temporary(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from None
    write_whole(out / SETTINGS_FILE, (json.dumps(header, indent=1) + "\n").encode())


def _check_settings(out: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads((out / SETTINGS_FILE).read_text(encoding="utf-8"))
        format_, version, settings = found["format"], found["version"], dict(found["settings"])
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{out}: its {SETTINGS_FILE} is damaged; choose a new folder") from None
    if (format_, version) != (FORMAT, VERSION):
        raise OutputError(f"{out}: holds a set of version {version}, not {VERSION}; choose a new folder")
    for name, value in wanted["settings"].items():
        if settings.get(name) != value:
            told = f"{name.removesuffix('_px').replace('_', ' ')} {settings.get(name)}, not {value}"
            raise OutputError(f"{out}: was begun with {told}; use the same options or a new folder")


def _remove_temporary(folder: Path) -> None:
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def remove_temporary(out: Path) -> None:
    """Delete what interrupted work left behind; files that cannot be deleted stay."""
    for folder in (out, out / CLIPS, out / RECORDS):
        with suppress(OSError):
            _remove_temporary(folder)


def read_record(out: Path, key: str) -> dict[str, Any] | None:
    """The record of a video whose clips are all there, else None."""
    try:
        record = json.loads((out / RECORDS / f"{key}.json").read_text(encoding="utf-8"))
        for clip in record["clips"]:
            for suffix, size in ((FILM_SUFFIX, "film_bytes"), (TENSOR_SUFFIX, "tensor_bytes")):
                if (out / CLIPS / (clip["clip"] + suffix)).stat().st_size != clip[size]:
                    return None
        return record if {"video", "fingerprint", "frames", "drops", "warnings"} <= record.keys() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(out: Path, key: str) -> None:
    """Delete the record of a video and its clips, if there are any.

    Raises:
        OutputError: a file cannot be deleted.
    """
    try:
        (out / RECORDS / f"{key}.json").unlink(missing_ok=True)
        for path in (out / CLIPS).glob(f"{key}-[0-9]*"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from None


def all_records(out: Path) -> list[dict[str, Any]]:
    """The records of all finished videos, those of earlier runs included, in the order of their names."""
    keys = [path.stem for path in (out / RECORDS).glob("*.json")]
    records = [record for key in keys if (record := read_record(out, key)) is not None]
    return sorted(records, key=lambda record: record["video"])


def write_index(out: Path, settings: Settings, records: list[dict[str, Any]]) -> None:
    """One line about the set, then one line per clip."""
    clips = [clip for record in records for clip in record["clips"]]
    header = {"format": FORMAT, "version": VERSION, "settings": asdict(settings), "clips": len(clips)}
    lines = [json.dumps(entry) for entry in (header, *clips)]
    write_whole(out / INDEX_FILE, ("\n".join(lines) + "\n").encode())
