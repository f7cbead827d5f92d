"""Sound of a video being written."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from personalive.errors import InputError
from personalive.media.audio import AudioCut, SoundReader
from personalive.media.config import MediaConfig
from personalive.media.worker import Link, Worker


class AudioFeed:
    """Sound packets for a video being written, read little by little as the images advance.

    Reading errors end the sound, not the video; they are reported in ``warnings``.
    """

    def __init__(self, cut: AudioCut, container: OutputContainer, config: MediaConfig) -> None:
        """Adds a sound stream to ``container``, which must not have been written to yet.

        Raises:
            InputError: the file cannot be opened.
        """
        self._cut, self._container = cut, container
        self._warnings: list[str] = []
        self._sound = _IsolatedSound(cut, config) if cut.isolated else SoundReader(cut, config)
        self._stream = self._sound.add_to(container)
        self._packets: Iterator[tuple[Fraction, Packet]] = iter(()) if self._stream is None else self._sound.packets()
        self._next: tuple[Fraction, Packet] | None = None
        self._started = False

    @property
    def warnings(self) -> list[str]:
        """Warnings for the user, one line each."""
        return [*self._sound.warnings, *self._warnings]

    def pump(self, until: Fraction | None) -> None:
        """Write all sound that begins at or before ``until`` (seconds of the video; None: all of it)."""
        if not self._started:
            self._started = True
            self._advance()
        while self._next is not None and (until is None or self._next[0] <= until):
            packet = self._next[1]
            packet.stream = self._stream
            self._container.mux_one(packet)
            self._advance()

    def _advance(self) -> None:
        try:
            self._next = next(self._packets, None)
        except InputError as error:
            self._next = None
            self._warnings.append(f"{error}: its sound ends there")

    def close(self) -> None:
        """Close the source of the sound."""
        self._next, self._packets = None, iter(())
        self._sound.close()


class _IsolatedSound:
    """A ``SoundReader`` whose work is done in a process of its own."""

    def __init__(self, cut: AudioCut, config: MediaConfig) -> None:
        self.warnings: list[str] = []
        end = None if cut.end is None else str(cut.end)
        self._worker = Worker(f"{__name__}:send_sound", cut.path, config, None, start=str(cut.start), end=end)
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


# --- in the process -----------------------------------------------------------------------------------------


def send_sound(link: Link) -> None:
    start = link.time("start")
    assert start is not None
    link.on_progress()
    sound = SoundReader(AudioCut(link.path, start, link.time("end")), link.config)
    # A file without content describes the stream to the process that asked.
    header = io.BytesIO()
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
