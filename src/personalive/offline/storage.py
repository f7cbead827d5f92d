"""Files of a batch at URLs (s3, gs, http, ...), by fsspec: inputs are fetched to a private folder, results sent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from personalive.errors import InputError, OutputError
from personalive.offline.config import BatchConfig

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Url:
    """Place of a file that is no path, with what a batch needs of ``Path``."""

    text: str

    @property
    def parent(self) -> Url:
        """Folder that it lies in."""
        return Url(self.text.rpartition("/")[0])

    @property
    def name(self) -> str:
        """Last part of its path."""
        return PurePosixPath(urlsplit(self.text).path).name

    @property
    def stem(self) -> str:
        """Name without the ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Ending of the name."""
        return PurePosixPath(self.name).suffix

    def with_suffix(self, suffix: str) -> Url:
        """Return the place with another ending."""
        return Url(self.text.removesuffix(self.suffix) + suffix)

    def __str__(self) -> str:
        return self.text

    # --- files, by fsspec -------------------------------------------------------------------------------------------

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # noqa: PLC0415 (keeps --help fast)

        return url_to_fs(self.text)

    def read(self, limit_bytes: int) -> bytes:
        """Content of a small file, at most one byte more than the limit.

        Raises:
            OSError: there is none, or it cannot be reached.
        """
        with _as_os_error():
            system, path = self._open()
            with system.open(path, "rb") as file:
                return file.read(limit_bytes + 1)

    def modified_ns(self) -> int | None:
        """Time of its last change in ns since 1970; None where the storage does not tell, as http.

        Raises:
            OSError: there is no such file, or it cannot be reached.
        """
        with _as_os_error():
            system, path = self._open()
            system.info(path)
            try:
                found: datetime = system.modified(path)
            except (NotImplementedError, KeyError):
                return None
        return int(found.timestamp() * 1e9)

    def fetch(self, target: Path) -> None:
        """Copy the file to ``target``.

        Raises:
            InputError: there is none, it cannot be reached, or it is too large.
        """
        limit, count = BatchConfig.max_fetched_bytes, 0
        try:
            with _as_os_error():
                system, path = self._open()
                with system.open(path, "rb") as source, target.open("wb") as copy:
                    while block := source.read(_BLOCK_BYTES):
                        if (count := count + len(block)) > limit:
                            raise OSError(f"is larger than {limit // 1_000_000_000} GB")
                        copy.write(block)
        except OSError as error:
            raise InputError(f"{self.text}: cannot be fetched ({error}); check the address") from None

    def send(self, source: Path) -> None:
        """Put ``source`` here, all at once: under another name first.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with _as_os_error():
                system, path = self._open()
                temporary = f"{path.rpartition('/')[0]}/.personalive-{secrets.token_hex(6)}.tmp"
                try:
                    system.makedirs(path.rpartition("/")[0], exist_ok=True)
                    system.put_file(str(source), temporary)
                    system.mv(temporary, path)
                except BaseException:
                    with suppress(OSError, NotImplementedError):
                        system.rm_file(temporary)
                    raise
        except OSError as error:
            raise OutputError(f"{self.text}: cannot be written ({error}); choose another output") from None


Place = Path | Url


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Every storage has errors of its own, down to a library of its own that is missing."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise OSError(text) from error


def place_of(text: str, folder: Place) -> Place:
    """A URL as it is, else a path from ``folder``, resolved.

    Raises:
        InputError: it can be neither.
    """
    if "://" in text:
        if "::" in text or not (url := Url(text)).suffix:
            raise InputError(f"{text}: should be the URL of a single file, with its ending")
        return url
    return Url(f"{folder}/{text}") if isinstance(folder, Url) else resolved(folder / text)


def folder_of(text: str | os.PathLike[str]) -> Place:
    """A folder by URL or path, resolved."""
    return Url(str(text).rstrip("/")) if "://" in str(text) else resolved(Path(text))


def resolved(path: Path) -> Path:
    """The absolute path without links.

    Raises:
        InputError: there can be none.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{str(path)!r}: leads nowhere ({error}); check the name") from None


def read_place(place: Place, limit_bytes: int) -> bytes:
    """Content of a small file; see ``Url.read``."""
    if isinstance(place, Url):
        return place.read(limit_bytes)
    with place.open("rb") as file:
        return file.read(limit_bytes + 1)


def modified_ns(place: Place) -> int | None:
    """Time of the last change of a file; see ``Url.modified_ns``."""
    return place.modified_ns() if isinstance(place, Url) else place.stat().st_mtime_ns


def renamed(value: Any, names: dict[str, str]) -> Any:
    """JSON value with other names of files in all its texts."""
    if isinstance(value, dict):
        return {key: renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part, names) for part in value]
    if isinstance(value, str):
        for path, url in names.items():
            value = value.replace(path, url)
    return value
