"""Sound of a video being written."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from av.container import OutputContainer
from av.packet import Packet

from personalive.errors import InputError
from personalive.media.audio import AudioCut
from personalive.media.config import MediaConfig
from personalive.media.isolated import open_sound


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
        self._sound = open_sound(cut, config)
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
