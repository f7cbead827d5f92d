"""The sound of a clip, cut to its images: copied where mp4 can hold it, else encoded as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import EOFError as AVEOFError
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet

from personalive.media.config import MediaConfig
from personalive.media.decode import open_container
from personalive.media.paths import reason
from personalive.media.source import ticks

# Codec name to the lowest sample rate mp4 holds it at. Opus and FLAC fit too, but many players refuse them.
_COPIED = {"aac": 0, "mp3": 16_000, "mp3float": 16_000, "ac3": 0, "eac3": 0, "alac": 0}
_AAC_RATES = (44_100, 48_000)  # kept; others become the second, since slower AAC ends less exactly
_AAC_PACKET = 1024  # samples
_SILENCE_CHUNK = 4096  # samples


@dataclass(frozen=True, slots=True)
class AudioCut:
    """The sound of ``path`` between two of its own time stamps, in seconds.

    ``start`` is what becomes second 0 of the video; ``end`` None means to the end of the file.
    """

    path: Path
    start: Fraction
    end: Fraction | None = None


class AudioFeed:
    """Sound packets for a video being written, read little by little as the images advance.

    Reading errors end the sound, not the video; they are reported in ``warnings``.
    """

    def __init__(self, cut: AudioCut, container: OutputContainer, config: MediaConfig) -> None:
        """Adds a sound stream to ``container``, which must not have been written to yet.

        Raises:
            InputError: the file cannot be opened.
        """
        self.warnings: list[str] = []
        self._cut, self._container = cut, container
        self._source = open_container(cut.path)
        source = self._source.streams.best("audio")
        self._packets: Iterator[tuple[Fraction, Packet]] = iter(())
        self._next: tuple[Fraction, Packet] | None = None
        self._started = False
        if not isinstance(source, AudioStream) or source.codec_context is None:
            self.warnings.append(f"{cut.path}: its sound is of an unknown kind; the video is silent")
        elif source.codec_context.sample_rate >= _COPIED.get(source.codec_context.name, float("inf")):
            target = container.add_stream_from_template(source)
            self._packets = _copied(self._source, source, target, cut, config)
        else:
            encoder = _Encoder(source, container, cut, config)
            self._packets = encoder.packets(_decoded(self._source, source, cut, config))

    def pump(self, until: Fraction | None) -> None:
        """Write all sound that begins at or before ``until`` (seconds of the video; None: all of it)."""
        if not self._started:
            self._started = True
            self._advance()
        while self._next is not None and (until is None or self._next[0] <= until):
            self._container.mux_one(self._next[1])
            self._advance()

    def _advance(self) -> None:
        try:
            self._next = next(self._packets, None)
        except (FFmpegError, ValueError) as error:
            self._next = None
            self.warnings.append(f"{self._cut.path}: its sound ends early or is damaged ({reason(error)})")

    def close(self) -> None:
        """Close the source of the sound."""
        self._next, self._packets = None, iter(())
        self._source.close()


def _seek(container: InputContainer, stream: AudioStream, cut: AudioCut, config: MediaConfig) -> None:
    before = cut.start - Fraction(config.audio_preroll_s)
    if stream.time_base and before > (stream.start_time or 0) * stream.time_base:
        with suppress(FFmpegError):  # then reading starts at the beginning, which is only slower
            container.seek(ticks(before, stream.time_base), stream=stream)


def _copied(
    container: InputContainer, source: AudioStream, target: AudioStream, cut: AudioCut, config: MediaConfig
) -> Iterator[tuple[Fraction, Packet]]:
    """Packets with times of the video. One packet before the cut is kept: the decoder needs it to start clean.

    Its time is negative, so that players leave it out. At the end the packet is kept whose middle is inside.
    """
    base = source.time_base or Fraction(1, source.codec_context.sample_rate)
    offset = ticks(cut.start, base)
    end = None if cut.end is None else cut.end - cut.start
    _seek(container, source, cut, config)
    last_pts: int | None = None
    for packet in container.demux(source):
        if packet.pts is None or (last_pts is not None and packet.pts <= last_pts):
            continue
        length = packet.duration or 0
        if packet.pts + 2 * length <= offset:
            continue
        last_pts = packet.pts
        packet.pts = packet.dts = packet.pts - offset
        if end is not None and (packet.pts + Fraction(length, 2)) * base >= end:
            return
        time = packet.pts * base
        packet.stream = target
        yield time, packet


def _decoded(
    container: InputContainer, source: AudioStream, cut: AudioCut, config: MediaConfig
) -> Iterator[AudioFrame]:
    _seek(container, source, cut, config)
    damaged = 0
    for packet in container.demux(source):
        try:
            yield from packet.decode()
        except AVEOFError:
            return
        except InvalidDataError:
            damaged += 1  # a gap; the encoder fills it with silence


class _Encoder:
    """Decoded sound to AAC packets, sample-exact at both ends of the cut."""

    def __init__(self, source: AudioStream, container: OutputContainer, cut: AudioCut, config: MediaConfig) -> None:
        rate = source.codec_context.sample_rate
        self._rate = rate if rate in _AAC_RATES else _AAC_RATES[-1]
        layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=self._rate, layout=layout)
        self._stream.bit_rate = config.audio_bit_rate
        self._stream.time_base = Fraction(1, self._rate)
        self._resampler = AudioResampler(format="fltp", layout=layout, rate=self._rate)
        self._layout = layout
        self._cut = cut
        self._end = None if cut.end is None else ticks((cut.end - cut.start), Fraction(1, self._rate))
        self._gap = round(config.audio_gap_s * self._rate)
        self._next = 0  # samples handed to the encoder so far

    def packets(self, frames: Iterator[AudioFrame]) -> Iterator[tuple[Fraction, Packet]]:
        """Encode ``frames`` (times of the source) to packets with times of the video."""
        for frame in frames:
            for part in self._resampler.resample(frame):
                yield from self._encode(part)
            if self._end is not None and self._next >= self._end:
                break
        else:
            for part in self._resampler.resample(None):
                yield from self._encode(part)
        for time, packet in self._timed(self._stream.encode(None)):
            # The last packet is filled up with silence: kept only if at least half of it is sound.
            if (time * self._rate) + _AAC_PACKET // 2 <= self._next:
                yield time, packet

    def _encode(self, frame: AudioFrame) -> Iterator[tuple[Fraction, Packet]]:
        samples = frame.to_ndarray()
        for piece in self._placed(samples, self._position(frame)):
            kept = piece if self._end is None else piece[:, : max(self._end - self._next, 0)]
            if kept.shape[1]:
                yield from self._timed(self._stream.encode(self._frame(kept)))

    def _position(self, frame: AudioFrame) -> int:
        if frame.pts is None or frame.time_base is None:
            return self._next
        return ticks(frame.pts * frame.time_base - self._cut.start, Fraction(1, self._rate))

    def _placed(self, samples: np.ndarray, position: int) -> Iterator[np.ndarray]:
        """``samples`` ``(C, N)`` with silence before them or their beginning dropped, to be at ``position``.

        Small differences are rounding of time stamps and are left, except at the start of the video.
        """
        tolerance = self._gap if self._next else 0
        if position < self._next - tolerance:
            samples = samples[:, self._next - position :]
        elif position > self._next + tolerance:
            missing = position - self._next
            if self._end is not None:
                missing = min(missing, max(self._end - self._next, 0))
            for begin in range(0, missing, _SILENCE_CHUNK):
                yield np.zeros((samples.shape[0], min(_SILENCE_CHUNK, missing - begin)), np.float32)
        yield samples

    def _frame(self, samples: np.ndarray) -> AudioFrame:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._next
        self._next += samples.shape[1]
        return frame

    def _timed(self, packets: list[Packet]) -> Iterator[tuple[Fraction, Packet]]:
        for packet in packets:
            yield (packet.pts or 0) * packet.time_base, packet
