"""Clips and images of others, decoded in a process of its own: a fault there ends that process, never this one.

Each open file has one process (``worker``), bounded in memory and in time per frame. Images come back through memory
that both processes map. Where the operating system is not POSIX, files are decoded in this process.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from personalive.config import SIGNER_ENV
from personalive.errors import InputError, OutputError
from personalive.media.audio import AudioCut
from personalive.media.config import MediaConfig
from personalive.media.credentials import SIDECAR, WEBM, Origin, sidecar, sign_file
from personalive.media.paths import check_input, reason
from personalive.media.reader import Frame, VideoInfo, VideoReader, check_times
from personalive.media.still import check_size, load_still
from personalive.media.worker import NEXT, REWIND, Link, RewindError, Worker

_SLOTS = 3  # frames decoded ahead of the reader
_CREDENTIALS_BYTES = 1_000_000  # more than those of one file take
_SEND_STILL = "personalive.media.still:send_still"  # whose imports are few: they take most of the time
_POSIX = os.name == "posix"


def open_isolated_video(
    path: str | os.PathLike[str],
    start_s: Fraction | float | None = None,
    end_s: Fraction | float | None = None,
    config: MediaConfig | None = None,
) -> VideoReader:
    """Open a clip as ``open_video`` does, decoded in a process of its own; its sound is read in another one.

    Raises:
        InputError: as ``open_video``, and where the decoder crashes, hangs or wants too much memory, then or later.
    """
    reader = IsolatedVideoReader if _POSIX else VideoReader
    return reader(path, start_s, end_s, config)


def load_isolated_still(path: str | os.PathLike[str], config: MediaConfig | None = None) -> np.ndarray:
    """Load an image as ``load_still`` does, uint8 ``(H, W, 3)``, decoded in a process of its own.

    Raises:
        InputError: as ``load_still``, and where the decoder crashes, hangs or wants too much memory.
    """
    config = config or MediaConfig()
    path = check_input(path)
    if not _POSIX:
        return load_still(path, config)
    with (
        _SharedFrames() as shared,
        Worker(_SEND_STILL, path, config, shared.descriptor, background=True) as worker,
    ):
        size = worker.receive()
        shared.allocate(path, size["width"], size["height"], 1, config)
        worker.send(NEXT)
        worker.receive()
        return shared.copy(0)


def sign_isolated(path: Path, media_type: str, origin: Origin, config: MediaConfig | None = None) -> Path:
    """Put content credentials into a file of others, or beside it where its kind cannot hold any.

    Returns:
        The file that holds them: ``path`` itself, or one with the ending ``SIDECAR``.

    Raises:
        InputError: the file is not of this kind, or reading it crashes, hangs or wants too much memory.
    """
    if not _POSIX:
        return _sign(path, media_type, origin)
    from personalive.media.signer import signer_files  # noqa: PLC0415 (decoding needs none)

    request = {
        "signer": str(signer_files().folder),
        "media_type": media_type,
        "origin": json.dumps(asdict(origin)),
        "written_bytes": str(path.stat().st_size + _CREDENTIALS_BYTES),
    }
    with Worker(f"{__name__}:sign_one", path, config or MediaConfig(), None, background=True, **request) as worker:
        return Path(worker.receive()["signed"])


def _sign(path: Path, media_type: str, origin: Origin) -> Path:
    try:
        if media_type != WEBM:
            sign_file(path, media_type, origin)
            return path
        beside = path.with_suffix(SIDECAR)
        beside.write_bytes(sidecar(path, media_type, origin))
    except (OutputError, OSError) as error:
        raise InputError(f"{path}: {reason(error)}") from None
    return beside


class IsolatedVideoReader(VideoReader):
    """A ``VideoReader`` whose work is done in a process of its own. Made by ``open_isolated_video``."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        start_s: Fraction | float | None = None,
        end_s: Fraction | float | None = None,
        config: MediaConfig | None = None,
    ) -> None:
        self.path = check_input(path)
        self._config = config or MediaConfig()
        start, end = check_times(self.path, start_s, end_s)
        begin, stop = (None if time is None else str(time) for time in (start, end))
        self._warnings: list[str] = []
        self._shared = _SharedFrames()
        try:
            descriptor = self._shared.descriptor
            self._worker = Worker(
                f"{__name__}:send_video", self.path, self._config, descriptor, start=begin, end=stop
            )
        except BaseException:
            self._shared.close()
            raise
        try:
            self._begin(self._worker.receive())
        except BaseException:
            self.close()
            raise

    def _begin(self, opened: dict[str, Any]) -> None:
        stated, sound = opened["info"], opened["audio"]
        duration = stated["duration_s"]
        self.info = VideoInfo(
            **stated
            | {name: Fraction(stated[name]) for name in ("average_fps", "time_base")}
            | {"duration_s": None if duration is None else Fraction(duration)}
        )
        self._shared.allocate(self.path, self.info.width, self.info.height, _SLOTS, self._config)
        self.audio = None
        if sound is not None:
            end = None if sound["end"] is None else Fraction(sound["end"])
            self.audio = AudioCut(self.path, Fraction(sound["start"]), end, isolated=True)
        self._frames = self._receive_frames()
        self._worker.send(NEXT * _SLOTS)

    def _receive_frames(self) -> Iterator[Frame]:
        while True:
            message = self._worker.receive()
            self._warnings = message.get("warnings", self._warnings)
            if "slot" not in message:
                return
            image = self._shared.copy(message["slot"])
            self._worker.send(NEXT)
            yield Frame(image, Fraction(message["time"]), message["pts"], Fraction(message["duration"]))

    @property
    def warnings(self) -> list[str]:
        """See ``VideoReader``."""
        return list(self._warnings)

    def rewind(self) -> None:
        """See ``VideoReader``; the process stays the same."""
        self._worker.send(REWIND)
        message = self._worker.receive()
        while "info" not in message:  # frames that were on their way
            message = self._worker.receive()
        self._begin(message)

    def interrupt(self) -> None:
        """See ``VideoReader``."""
        self._worker.kill()

    def close(self) -> None:
        """End the process, wherever it is. Reading on after this is an error."""
        self._frames = iter(())
        self._worker.close()
        self._shared.close()


class _SharedFrames:
    """Memory for a few images of one size, which the process fills and this one reads."""

    def __init__(self) -> None:
        self.descriptor = _anonymous_file()
        self._map: mmap.mmap | None = None
        self._shape = (0, 0, 0, 3)

    def allocate(self, path: Path, width: int, height: int, slots: int, config: MediaConfig) -> None:
        """Make room for ``slots`` images of ``height`` x ``width`` x 3 bytes; again only of the same size."""
        shape = (slots, height, width, 3)
        if self._map is not None:
            if shape != self._shape:
                raise InputError(f"{path}: has changed while it was read; send or open it again")
            return
        check_size(path, width, height, config)
        os.ftruncate(self.descriptor, slots * height * width * 3)
        self._map, self._shape = mmap.mmap(self.descriptor, 0), shape

    def copy(self, slot: int) -> np.ndarray:
        """A copy of one image, uint8 ``(H, W, 3)``."""
        slots, height, width, _ = self._shape
        assert self._map is not None
        assert 0 <= slot < slots
        size = height * width * 3
        return np.frombuffer(self._map, np.uint8, size, slot * size).reshape(height, width, 3).copy()

    def close(self) -> None:
        """Free the memory."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        if self._map is not None:
            self._map.close()
            self._map = None

    def __enter__(self) -> _SharedFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _anonymous_file() -> int:
    """A file without a name: unlike named shared memory it needs no /dev/shm, which containers keep small.

    Nothing of it stays behind either, however this process ends.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("personalive-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# --- in the process -----------------------------------------------------------------------------------------


def send_video(link: Link) -> None:
    shared: mmap.mmap | None = None
    while True:
        link.on_progress()
        with VideoReader(
            link.path, link.time("start"), link.time("end"), link.config, on_progress=link.on_progress
        ) as reader:
            link.send({"info": _info(reader), "audio": _audio(reader.audio)})
            try:
                link.wait_for_slot()  # now the memory is there
                shared = shared or mmap.mmap(link.request["descriptor"], 0)
                _send_frames(link, reader, shared)
                while True:  # only a new start is left to ask for
                    link.wait_for_slot()
            except RewindError:
                continue


def _info(reader: VideoReader) -> dict[str, Any]:
    info = reader.info
    return {
        "width": info.width,
        "height": info.height,
        "average_fps": str(info.average_fps),
        "duration_s": None if info.duration_s is None else str(info.duration_s),
        "estimated_frames": info.estimated_frames,
        "has_audio": info.has_audio,
        "time_base": str(info.time_base),
    }


def _audio(cut: AudioCut | None) -> dict[str, Any] | None:
    return None if cut is None else {"start": str(cut.start), "end": None if cut.end is None else str(cut.end)}


def _send_frames(link: Link, reader: VideoReader, shared: mmap.mmap) -> None:
    shape = (reader.info.height, reader.info.width, 3)
    slots = np.frombuffer(shared, np.uint8).reshape(_SLOTS, *shape)
    sent: list[str] = []
    for number, frame in enumerate(reader):
        if number:
            link.wait_for_slot()
        if frame.image.shape != shape:
            raise ValueError("the size of its images changes")
        slots[number % _SLOTS] = frame.image
        message = {
            "slot": number % _SLOTS,
            "time": str(frame.time),
            "pts": frame.pts,
            "duration": str(frame.duration),
        }
        if (warnings := reader.warnings) != sent:
            sent = message["warnings"] = warnings
        link.send(message)
    link.send({"warnings": reader.warnings})


def sign_one(link: Link) -> None:
    link.on_progress()
    os.environ[SIGNER_ENV] = link.request["signer"]
    signed = _sign(link.path, link.request["media_type"], Origin(**json.loads(link.request["origin"])))
    link.send({"signed": str(signed)})
