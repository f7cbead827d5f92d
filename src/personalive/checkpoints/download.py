"""Fetch the released weights: resumed, bounded, and in place only after their hash matched.

Hashes are those that the hub publishes with its file listing (pinned ones come with this package). They prove
that the transfer is whole, not that the publisher is honest; nothing fetched is opened here, and weight files
are later read without running anything in them.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from personalive.checkpoints.config import DownloadConfig
from personalive.checkpoints.hub import ConnectionLostError, Hub, RemoteFile
from personalive.checkpoints.sources import RELEASED, Source
from personalive.errors import DownloadError

_DEFAULTS = DownloadConfig()
_AGAIN = "run `personalive weights download` again (it resumes)"


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far the whole download is. Bytes already on disk count as done; the rate is of this run."""

    file: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: float
    left_s: float | None  # None until a rate is known


ProgressCallback = Callable[[DownloadProgress], None]


@dataclass(frozen=True, slots=True)
class _Item:
    """One file to have: what the hub says of it, and where it goes."""

    remote: RemoteFile
    path: Path

    @property
    def name(self) -> str:
        """Repository and path, for messages."""
        return f"{self.remote.repo}/{self.remote.path}"

    @property
    def partial(self) -> Path:
        """Where its bytes gather; the hash in the name keeps another version's bytes apart."""
        published = self.remote.sha256 or self.remote.git_sha1 or ""
        return self.path.with_name(f"{self.path.name}.{published[:12]}.part")

    def hasher(self) -> Any:
        """A new hash of the published kind."""
        if self.remote.sha256:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.remote.size}\0".encode(), usedforsecurity=False)  # as git does

    def matches(self, digest: Any) -> bool:
        """Whether a finished hash is the published one."""
        return digest.hexdigest() == (self.remote.sha256 or self.remote.git_sha1)


@dataclass(slots=True)
class _Meter:
    """Counts bytes over all files and reports, not more often than asked."""

    total: int
    callback: ProgressCallback | None
    interval_s: float
    done: int = 0
    received: int = 0
    started: float = field(default_factory=time.monotonic)
    reported: float = 0.0

    def add(self, name: str, count: int, received: bool) -> None:
        self.done += count
        self.received += count if received else 0
        now = time.monotonic()
        if self.callback is None or (now - self.reported < self.interval_s and self.done < self.total):
            return
        self.reported = now
        rate = self.received / max(now - self.started, 1e-6)
        left = (self.total - self.done) / rate if rate > 0 else None
        self.callback(DownloadProgress(name, self.done, self.total, rate, left))


class _Partial:
    """The bytes gathered so far: on disk, hashed and counted alike."""

    def __init__(self, item: _Item, file: BinaryIO, meter: _Meter, chunk_bytes: int) -> None:
        self.item, self._file, self._meter = item, file, meter
        self.digest = item.hasher()
        self.size = 0
        file.seek(0)
        while chunk := file.read(chunk_bytes):
            self._count(chunk, received=False)
        if self.size > item.remote.size:
            self.restart()

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._count(chunk, received=True)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._meter.add(self.item.remote.path, -self.size, received=False)
        self.size, self.digest = 0, self.item.hasher()

    def _count(self, chunk: bytes, received: bool) -> None:
        self.digest.update(chunk)
        self.size += len(chunk)
        self._meter.add(self.item.remote.path, len(chunk), received)


def download_weights(
    folder: Path,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    sources: Sequence[Source] = RELEASED,
    progress: ProgressCallback | None = None,
    settings: DownloadConfig = _DEFAULTS,
) -> list[Path]:
    """Fetch all ``sources`` into ``folder``; what is there and right is kept, what is half there resumed.

    ``endpoint``: a hub mirror; else the environment's HF_ENDPOINT; else the official hub. ``token``: for the
    endpoint; without it the user's saved one is used, for the official hub only.

    Returns:
        The files, in the order of ``sources``.

    Raises:
        DownloadError: one line that says what to do: unreachable, absent, gated, too large, wrong hash, disk
            full.
    """
    hub = Hub(endpoint, token, settings)
    items = _plan(hub, folder, sources)
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_space(folder, items)
        meter = _Meter(sum(item.remote.size for item in items), progress, settings.report_interval_s)
        for item in items:
            _fetch(hub, item, meter, settings)
    return [item.path for item in items]


def _plan(hub: Hub, folder: Path, sources: Sequence[Source]) -> list[_Item]:
    """Look every source up before the first byte is fetched."""
    listings: dict[tuple[str, str], dict[str, RemoteFile]] = {}
    items = []
    for source in sources:
        key = (source.repo, source.revision)
        if key not in listings:
            listings[key] = hub.files(*key)
        items.append(_choose(source, listings[key], folder, hub.endpoint))
    return items


def _choose(source: Source, listing: dict[str, RemoteFile], folder: Path, endpoint: str) -> _Item:
    for path, destination in zip(source.paths, source.destinations, strict=True):
        if path in listing:
            return _Item(_checked(source, listing[path], endpoint), folder / destination)
    wanted = " nor ".join(source.paths)
    raise DownloadError(f"{source.repo}: has no {wanted} at {endpoint}: try another --endpoint")


def _checked(source: Source, remote: RemoteFile, endpoint: str) -> RemoteFile:
    """The listed file, if it is what is expected; a pinned hash replaces an absent one."""
    name = f"{remote.repo}/{remote.path}"
    if remote.size > source.max_bytes:
        raise DownloadError(
            f"{name}: {remote.size} bytes at {endpoint}, at most {source.max_bytes} expected: not fetched, "
            "try another --endpoint"
        )
    if source.sha256 and source.sha256 != (remote.sha256 or source.sha256):
        raise DownloadError(f"{name}: not the expected version at {endpoint}: try another --endpoint")
    if not (source.sha256 or remote.sha256 or remote.git_sha1):
        raise DownloadError(f"{name}: {endpoint} publishes no hash for it: try another --endpoint")
    return replace(remote, sha256=source.sha256) if source.sha256 else remote


def _check_space(folder: Path, items: Sequence[_Item]) -> None:
    def present(item: _Item) -> int:
        return max((path.stat().st_size for path in (item.path, item.partial) if path.exists()), default=0)

    needed = sum(max(0, item.remote.size - present(item)) for item in items)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder}: {needed / 1e9:.1f} GB still to fetch, {free / 1e9:.1f} GB free: "
            "free some space or choose another folder"
        )


def _fetch(hub: Hub, item: _Item, meter: _Meter, settings: DownloadConfig) -> None:
    """Have one file in place, verified."""
    if item.path.exists():
        _keep(item, meter, settings)
        return
    item.path.parent.mkdir(parents=True, exist_ok=True)
    with item.partial.open("a+b") as file:
        partial = _Partial(item, file, meter, settings.chunk_bytes)
        _fill(hub, partial, settings)
    if not item.matches(partial.digest):
        item.partial.unlink()
        raise DownloadError(
            f"{item.name}: what {hub.endpoint} sent does not match its published hash; removed: "
            "run `personalive weights download` again, or try another --endpoint"
        )
    item.partial.replace(item.path)


def _keep(item: _Item, meter: _Meter, settings: DownloadConfig) -> None:
    """Accept a file that is in place already if it is the published one."""
    digest = item.hasher()
    with item.path.open("rb") as file:
        while chunk := file.read(settings.chunk_bytes):
            digest.update(chunk)
    if not item.matches(digest):
        raise DownloadError(
            f"{item.path}: differs from the published file and is not overwritten: remove it or choose another folder"
        )
    meter.add(item.remote.path, item.remote.size, received=False)


def _fill(hub: Hub, partial: _Partial, settings: DownloadConfig) -> None:
    """Complete the partial file, reconnecting where needed."""
    failures, wanted = 0, partial.item.remote.size
    while partial.size < wanted:
        before, lost = partial.size, "the connection closed early"
        try:
            _receive(hub, partial)
        except ConnectionLostError as error:
            lost = str(error)
        if partial.size == wanted:
            return
        failures = 0 if partial.size > before else failures + 1
        if failures > settings.retries:
            raise DownloadError(
                f"{partial.item.name}: stopped at {partial.size} of {wanted} bytes ({lost}): {_AGAIN}"
            )
        time.sleep(settings.retry_pause_s)


def _receive(hub: Hub, partial: _Partial) -> None:
    """Append one response to the partial file."""
    wanted = partial.item.remote.size
    with hub.stream(partial.item.remote, partial.size) as (start, chunks):
        if start != partial.size:
            partial.restart()
        for chunk in chunks:
            if partial.size + len(chunk) > wanted:
                raise DownloadError(
                    f"{partial.item.name}: {hub.endpoint} sends more than the {wanted} bytes it announced; "
                    "stopped: try another --endpoint"
                )
            partial.append(chunk)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}): "
            f"free some space or choose another folder, then {_AGAIN}"
        ) from error
