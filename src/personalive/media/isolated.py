"""Media of others, decoded in a process of its own: a fault of a decoder ends that process, never this one.

Each open file has one process (``isolated_worker``), bounded in memory and in time per frame. Images come back
through memory that both processes map, everything else as lines of JSON and bytes of packets through a pipe. Where
the operating system is not POSIX, files are decoded in this process.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from personalive.errors import InputError
from personalive.media.audio import AudioCut, SoundReader
from personalive.media.config import MediaConfig
from personalive.media.paths import check_input, convert_hint
from personalive.media.reader import Frame, VideoInfo, VideoReader, check_times
from personalive.media.still import check_size, load_still

SLOTS = 3  # frames decoded ahead of the reader
NEXT, REWIND = b"n", b"r"  # commands to the process: one more slot is free; start over
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
    with _SharedFrames() as shared, _Worker("still", path, config, shared.descriptor) as worker:
        size = worker.receive()
        shared.allocate(path, size["width"], size["height"], 1, config)
        worker.send(NEXT)
        worker.receive()
        return shared.copy(0)


def open_sound(cut: AudioCut, config: MediaConfig) -> SoundReader | IsolatedSound:
    """Open the sound of a cut where it asks for.

    Raises:
        InputError: the file cannot be opened.
    """
    return IsolatedSound(cut, config) if cut.isolated else SoundReader(cut, config)


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
        times = {"start": None if start is None else str(start), "end": None if end is None else str(end)}
        self._warnings: list[str] = []
        self._shared = _SharedFrames()
        try:
            self._worker = _Worker("video", self.path, self._config, self._shared.descriptor, **times)
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
        self._shared.allocate(self.path, self.info.width, self.info.height, SLOTS, self._config)
        self.audio = None
        if sound is not None:
            end = None if sound["end"] is None else Fraction(sound["end"])
            self.audio = AudioCut(self.path, Fraction(sound["start"]), end, isolated=True)
        self._frames = self._receive_frames()
        self._worker.send(NEXT * SLOTS)

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


class IsolatedSound:
    """A ``SoundReader`` whose work is done in a process of its own; made by ``open_sound``."""

    def __init__(self, cut: AudioCut, config: MediaConfig) -> None:
        self.warnings: list[str] = []
        end = None if cut.end is None else str(cut.end)
        self._worker = _Worker("sound", cut.path, config, None, start=str(cut.start), end=end)
        try:
            header = self._worker.receive()
            self.warnings = header["warnings"]
            self._header = self._worker.receive_bytes(header["bytes"])
        except BaseException:
            self.close()
            raise

    def add_to(self, container: OutputContainer) -> AudioStream | None:
        """See ``SoundReader``."""
        if not self._header:
            return None
        with av.open(io.BytesIO(self._header), format="mp4") as described:
            return container.add_stream_from_template(described.streams.audio[0])

    def packets(self) -> Iterator[tuple[Fraction, Packet]]:
        """See ``SoundReader``."""
        while "bytes" in (message := self._worker.receive()):
            packet = Packet(self._worker.receive_bytes(message["bytes"]))
            packet.pts = packet.dts = message["pts"]
            packet.duration, packet.time_base = message["duration"], Fraction(message["time_base"])
            packet.is_keyframe = True
            yield Fraction(message["time"]), packet
        self.warnings = message["warnings"]

    def close(self) -> None:
        """End the process."""
        self._worker.close()


# --- the process and the memory it shares ---------------------------------------------------------------------------


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


class _Worker:
    """The process, and messages to and from it."""

    def __init__(
        self, task: str, path: Path, config: MediaConfig, descriptor: int | None, **request: str | None
    ) -> None:
        self._path, self._config = path, config
        self._process = subprocess.Popen(
            # "-P": a module of the current folder is never taken for one of ours.
            [sys.executable, "-P", "-W", "ignore", "-m", "personalive.media.isolated_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=() if descriptor is None else (descriptor,),
            start_new_session=True,  # Ctrl-C and a closed terminal are this process's to answer
        )
        request |= {"task": task, "path": str(path)}
        line = json.dumps(request | {"descriptor": descriptor, "config": asdict(config)})
        self.send(line.encode() + b"\n")

    def send(self, command: bytes) -> None:
        """Send a command; a process that is gone is noticed when the answer does not come."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(command)
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Next message.

        Raises:
            InputError: it says so, or the process has ended.
        """
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except ValueError:  # closed by another thread
            line = b""
        if not line.endswith(b"\n"):
            raise InputError(self._cause_of_death())
        message = json.loads(line)
        if "error" in message:
            raise InputError(message["error"])
        return message

    def receive_bytes(self, count: int) -> bytes:
        """``count`` bytes that follow a message.

        Raises:
            InputError: the process has ended.
        """
        assert self._process.stdout is not None
        content = self._process.stdout.read(count)
        if len(content) < count:
            raise InputError(self._cause_of_death())
        return content

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGALRM:
            limit_s = self._config.decoder_frame_s
            return f"{self._path}: a frame of it took more than {limit_s:g} s to decode; {convert_hint(self._path)}"
        name = "a fault" if code >= 0 else signal.Signals(-code).name
        return f"{self._path}: the decoder ends in {name} at this file; {convert_hint(self._path)}"

    def kill(self) -> None:
        """End the process; reads of it end too."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of its pipes."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
