"""Download of the released weights: resumed, bounded, and in place only after the hash matched.

Hashes are those that the hub publishes with its file listing (pinned ones come with this package). They prove
that the transfer is whole, not that the publisher is honest; nothing fetched is opened here, and weight files
are later read without running anything in them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal

from personalive.checkpoints.config import DownloadConfig
from personalive.checkpoints.hub import AGAIN, ConnectionLostError, Hub, RemoteFile
from personalive.checkpoints.modelscope import ModelScope
from personalive.checkpoints.sources import RELEASED, Source
from personalive.errors import DownloadError
from personalive.progress import Meter, Progress

_DEFAULTS = DownloadConfig()


Publisher = Literal["hub", "modelscope"]
ProgressCallback = Callable[[Progress], None]  # bytes over all files; those on disk already count as done


@dataclass(slots=True)
class _Count:
    """Count of the bytes on disk over all files, reported at most every ``interval_s``."""

    meter: Meter
    callback: ProgressCallback | None
    interval_s: float
    done: float = field(init=False)
    reported: float = field(init=False, default=-1e9)

    def __post_init__(self) -> None:
        self.done = self.meter.found

    def add(self, name: str, count: int) -> None:
        self.done += count
        early = self.meter.seconds - self.reported < self.interval_s and self.done < (self.meter.total or 0)
        if self.callback is None or early:
            return
        self.reported = self.meter.seconds
        self.callback(self.meter.at(self.done, Path(name).name))


def download_weights(
    folder: Path,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    publisher: Publisher = "hub",
    sources: Sequence[Source] = RELEASED,
    progress: ProgressCallback | None = None,
    settings: DownloadConfig = _DEFAULTS,
) -> list[Path]:
    """Download all ``sources`` into ``folder``; complete files are kept, partial ones resumed.

    ``endpoint``: a hub mirror; else the environment's HF_ENDPOINT; else the official hub. ``token``: for the
    endpoint; without it the user's saved one is used, for the official hub only. ``publisher``: where from.

    Returns:
        The files, in the order of ``sources``.

    Raises:
        DownloadError: one line with the next step: unreachable, absent, gated, too large, wrong hash, disk full.
    """
    hub = _open(publisher, endpoint, token, settings)
    listing = cache(hub.files)  # one request per repository, all of them before the first byte of content
    files = [_choose(source, listing(source.repo, source.revision), folder, hub.endpoint) for source in sources]
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(remote.size for remote, _ in files)
        found = sum(_bytes_on_disk(remote, path) for remote, path in files)
        _check_space(folder, total - found)
        count = _Count(Meter(total, "bytes", found=found), progress, settings.report_interval_s)
        for remote, path in files:
            _fetch(hub, remote, path, count, settings)
    return [path for _, path in files]


def _open(publisher: Publisher, endpoint: str | None, token: str | None, settings: DownloadConfig) -> Hub:
    return ModelScope(endpoint, settings) if publisher == "modelscope" else Hub(endpoint, token, settings)


def missing_sources(
    folder: Path, sources: Sequence[Source] = RELEASED, publisher: Publisher = "hub"
) -> list[tuple[str, Path]]:
    """Address at the publisher, and place in ``folder``, of every file that is not there yet, to fetch by hand."""
    hub = _open(publisher, _DEFAULTS.endpoint if publisher == "hub" else None, None, _DEFAULTS)
    return [
        (hub.address(source.repo, source.paths[-1], source.revision), folder / source.destinations[-1])
        for source in sources
        if not any((folder / name).exists() for name in source.destinations)
    ]


def _choose(source: Source, listing: dict[str, RemoteFile], folder: Path, endpoint: str) -> tuple[RemoteFile, Path]:
    """Return an alternative of ``source``, and its destination: one that is there already, else the first listed."""
    pairs = zip(source.paths, source.destinations, strict=True)
    listed = [(listing[path], folder / destination) for path, destination in pairs if path in listing]
    for remote, destination in sorted(listed, key=lambda pair: not pair[1].exists()):
        return _checked(source, remote, endpoint), destination
    wanted = " nor ".join(source.paths)
    raise DownloadError(f"{source.repo}: has no {wanted} at {endpoint}: try another --endpoint")


def _checked(source: Source, remote: RemoteFile, endpoint: str) -> RemoteFile:
    """Return the listed file if it is the expected one; a pinned hash replaces an absent one."""
    if remote.size > source.max_bytes:
        raise DownloadError(
            f"{remote}: {remote.size} bytes at {endpoint}, at most {source.max_bytes} expected: not fetched, "
            "try another --endpoint"
        )
    if source.sha256 and source.sha256 != (remote.sha256 or source.sha256):
        raise DownloadError(f"{remote}: not the expected version at {endpoint}: try another --endpoint")
    if not (source.sha256 or remote.digest):
        raise DownloadError(f"{remote}: {endpoint} publishes no hash for it: try another --endpoint")
    return replace(remote, sha256=source.sha256) if source.sha256 else remote


def _partial(remote: RemoteFile, path: Path) -> Path:
    """Return the path of the partial file; the hash in its name keeps versions apart."""
    return path.with_name(f"{path.name}.{(remote.digest or '')[:12]}.part")


def _bytes_on_disk(remote: RemoteFile, path: Path) -> int:
    return max((p.stat().st_size for p in (path, _partial(remote, path)) if p.exists()), default=0)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder}: {needed / 1e9:.1f} GB still to fetch, {free / 1e9:.1f} GB free: "
            "free some space or choose another folder"
        )


def _fetch(hub: Hub, remote: RemoteFile, path: Path, count: _Count, settings: DownloadConfig) -> None:
    """Put one file in place, verified. A different file that is there already is never overwritten."""
    if path.exists():
        if not remote.matches(path):
            raise DownloadError(
                f"{path}: differs from the published file and is not overwritten: remove it or choose another folder"
            )
        count.add(remote.path, 0)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(remote, path)
    with partial.open("ab") as file:
        _complete(hub, remote, file, count, settings)
    if not remote.matches(partial):
        partial.unlink()
        raise DownloadError(
            f"{remote}: what {hub.endpoint} sent does not match its published hash; removed: "
            "run `personalive weights download` again, or try another --endpoint"
        )
    partial.replace(path)


def _complete(hub: Hub, remote: RemoteFile, file: BinaryIO, count: _Count, settings: DownloadConfig) -> None:
    """Append to the partial file until it is whole, reconnecting where needed."""
    failures = 0
    while (before := file.tell()) < remote.size:
        lost = "the connection closed early"
        try:
            _receive(hub, remote, file, count)
        except ConnectionLostError as error:
            lost = str(error)
        if file.tell() == remote.size:
            return
        failures = 0 if file.tell() > before else failures + 1
        if failures > settings.retries:
            raise DownloadError(f"{remote}: stopped at {file.tell()} of {remote.size} bytes ({lost}): {AGAIN}")
        time.sleep(settings.retry_pause_s)


def _receive(hub: Hub, remote: RemoteFile, file: BinaryIO, count: _Count) -> None:
    """Append one response to the partial file, never beyond the listed size."""
    with hub.stream(remote, file.tell()) as (start, chunks):
        if start != file.tell():
            count.add(remote.path, -file.tell())
            file.seek(0)
            file.truncate()
        for chunk in chunks:
            if file.tell() + len(chunk) > remote.size:
                raise DownloadError(
                    f"{remote}: {hub.endpoint} sends more than the {remote.size} bytes it announced; "
                    "stopped: try another --endpoint"
                )
            file.write(chunk)
            count.add(remote.path, len(chunk))


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into one line."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}): "
            f"free some space or choose another folder, then {AGAIN}"
        ) from error
