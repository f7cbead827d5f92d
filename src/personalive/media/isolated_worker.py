"""The process that decodes a file of somebody else for ``isolated``: ``python -m personalive.media.isolated_worker``.

It reads one request, then answers until the pipe to it is closed. A frame that takes too long ends it by SIGALRM,
whose default action needs no help from Python: also where a decoder never returns or nobody waits any more.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from personalive.errors import PersonaLiveError
from personalive.media.audio import AudioCut, SoundReader
from personalive.media.config import MediaConfig
from personalive.media.isolated import NEXT, REWIND, SLOTS
from personalive.media.paths import convert_hint, reason
from personalive.media.reader import VideoReader
from personalive.media.still import load_still


class _RewindError(Exception):
    """The reader asks for the first frame again."""


class _Link:
    """Pipes to the process that asked."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests, self._answers = requests, answers
        self.request = json.loads(requests.readline())
        self.path = Path(self.request["path"])
        self.config = MediaConfig(**self.request["config"])

    def send(self, message: dict[str, Any], content: bytes = b"") -> None:
        """Send a message and the bytes that follow it; the clock of the next frame stands meanwhile."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._answers.write(json.dumps(message).encode() + b"\n" + content)
        self._answers.flush()
        self.on_progress()

    def wait_for_slot(self) -> None:
        """Wait until a slot is free.

        Raises:
            _RewindError: the reader starts over instead.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        command = self._requests.read(1)
        if command == REWIND:
            raise _RewindError
        if command != NEXT:
            os._exit(0)
        self.on_progress()

    def on_progress(self) -> None:
        """Start the clock of the next frame."""
        signal.setitimer(signal.ITIMER_REAL, self.config.decoder_frame_s)

    def time(self, name: str) -> Fraction | None:
        """A time of the request in seconds."""
        return None if self.request[name] is None else Fraction(self.request[name])


def main() -> None:
    """Answer the request on standard input."""
    # Nothing that a library prints may come between the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    link = _Link(os.fdopen(0, "rb"), answers)
    _limit(link.config)
    try:
        {"video": _send_video, "still": _send_still, "sound": _send_sound}[link.request["task"]](link)
    except PersonaLiveError as error:
        link.send({"error": str(error)})
    except MemoryError:
        limit = f"{link.config.decoder_memory_bytes / 1e9:g} GB of memory"
        link.send({"error": f"{link.path}: wants more than {limit} to decode; {convert_hint(link.path)}"})
    except BrokenPipeError:
        pass
    except Exception as error:  # noqa: BLE001 (whatever a library raises is about this file)
        cause = f"{type(error).__name__}: {reason(error)}"
        link.send({"error": f"{link.path}: cannot be decoded ({cause}); {convert_hint(link.path)}"})
    os._exit(0)  # without the destructors of libraries, which a damaged heap may end in a fault


def _limit(config: MediaConfig) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    for kind, limit in (("DATA", config.decoder_memory_bytes), ("CORE", 0), ("FSIZE", 0)):
        _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (most, most))


# --- the three tasks ------------------------------------------------------------------------------------------------


def _send_video(link: _Link) -> None:
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
            except _RewindError:
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


def _send_frames(link: _Link, reader: VideoReader, shared: mmap.mmap) -> None:
    shape = (reader.info.height, reader.info.width, 3)
    slots = np.frombuffer(shared, np.uint8).reshape(SLOTS, *shape)
    told: list[str] = []
    for number, frame in enumerate(reader):
        if number:
            link.wait_for_slot()
        if frame.image.shape != shape:
            raise ValueError("the size of its images changes")
        slots[number % SLOTS] = frame.image
        message = {"slot": number % SLOTS, "time": str(frame.time), "pts": frame.pts, "duration": str(frame.duration)}
        if (warnings := reader.warnings) != told:
            told = message["warnings"] = warnings
        link.send(message)
    link.send({"warnings": reader.warnings})


def _send_still(link: _Link) -> None:
    link.on_progress()
    image = load_still(link.path, link.config)
    height, width = image.shape[:2]
    link.send({"width": width, "height": height})
    link.wait_for_slot()
    shared = mmap.mmap(link.request["descriptor"], 0)
    np.frombuffer(shared, np.uint8).reshape(image.shape)[:] = image
    link.send({})


def _send_sound(link: _Link) -> None:
    start = link.time("start")
    assert start is not None
    link.on_progress()
    sound = SoundReader(AudioCut(link.path, start, link.time("end")), link.config)
    # A file without content describes the stream to the process that asked.
    header = BytesIO()
    described = av.open(header, "w", format="mp4", container_options={"movflags": "empty_moov+default_base_moof"})
    stream = sound.add_to(described)
    if stream is None:
        link.send({"bytes": 0, "warnings": sound.warnings})
        return
    described.start_encoding()
    link.send({"bytes": len(header.getvalue()), "warnings": sound.warnings}, header.getvalue())
    for time, packet in sound.packets():
        content = bytes(packet)
        link.send(
            {
                "bytes": len(content),
                "time": str(time),
                "pts": packet.pts,
                "duration": packet.duration or 0,
                "time_base": str(packet.time_base),
            },
            content,
        )
    link.send({"warnings": sound.warnings})


if __name__ == "__main__":
    main()
