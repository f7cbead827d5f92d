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

from personalive.media.channels import native_order, reordered
from personalive.media.config import MediaConfig
from personalive.media.containers import open_container
from personalive.media.paths import reason
from personalive.media.source import ticks

# What browsers decode: codec name to the lowest sample rate mp4 holds it at. Opus and FLAC fit too, but many other
# players refuse them; mp4 holds AC-3, E-AC-3 and ALAC, which browsers do not decode.
_COPIED = {"aac": 0, "mp3": 16_000, "mp3float": 16_000}
_AAC_PROFILES = ("LC", "HE-AAC", "HE-AACv2")
_AAC_RATES = (44_100, 48_000)  # kept; others become the second, since slower AAC ends less exactly
_AAC_PACKET = 1024  # samples
_SILENCE_CHUNK = 4096  # samples


@dataclass(frozen=True, slots=True)
class AudioCut:
    """The sound of ``path`` between two of its own time stamps, in seconds.

    ``start`` is what becomes second 0 of the video; ``end`` None means to the end of the file. ``isolated`` has it
    read in a process of its own.
    """

    path: Path
    start: Fraction
    end: Fraction | None = None
    isolated: bool = False


class SoundReader:
    """The sound of a cut as packets that mp4 holds and browsers play, read little by little."""

    def __init__(self, cut: AudioCut, config: MediaConfig) -> None:
        """
        Raises:
            InputError: the file cannot be opened.
        """
        self.warnings: list[str] = []
        self._cut, self._config = cut, config
        self._source = open_container(cut.path)
        self._packets: Iterator[tuple[Fraction, Packet]] = iter(())

    def add_to(self, container: OutputContainer) -> AudioStream | None:
        """Add a stream for the packets to ``container``, which must not have been written to yet; None if silent."""
        source = self._source.streams.best("audio")
        if not isinstance(source, AudioStream) or source.codec_context is None:
            self.warnings.append(f"{self._cut.path}: its sound is of an unknown kind; the video is silent")
            return None
        if _can_be_copied(source):
            self._packets = _copied(self._source, source, self._cut, self._config)
            return container.add_stream_from_template(source)
        encoder = _Encoder(source, container, self._cut, self._config)
        self._packets = encoder.packets(_decoded(self._source, source, self._cut, self._config))
        return encoder.stream

    def packets(self) -> Iterator[tuple[Fraction, Packet]]:
        """Packets with their times in the video in seconds; a reading error ends them, with a warning."""
        while True:
            try:
                found = next(self._packets, None)
            except (FFmpegError, ValueError) as error:
                found = None
                self.warnings.append(f"{self._cut.path}: its sound ends early or is damaged ({reason(error)})")
            if found is None:
                return
            yield found

    def close(self) -> None:
        """Close the file."""
        self._packets = iter(())
        self._source.close()


def _can_be_copied(source: AudioStream) -> bool:
    context = source.codec_context
    if context.name == "aac" and context.profile not in _AAC_PROFILES:
        return False
    return context.sample_rate >= _COPIED.get(context.name, float("inf"))


def _seek(container: InputContainer, stream: AudioStream, cut: AudioCut, config: MediaConfig) -> None:
    before = cut.start - Fraction(config.audio_preroll_s)
    if stream.time_base and before > (stream.start_time or 0) * stream.time_base:
        with suppress(FFmpegError):  # then reading starts at the beginning, which is only slower
            container.seek(ticks(before, stream.time_base), stream=stream)


def _copied(
    container: InputContainer, source: AudioStream, cut: AudioCut, config: MediaConfig
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
        yield packet.pts * base, packet


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
        channels = native_order(source.codec_context)
        layout = "mono" if len(channels) == 1 else "stereo"
        self.stream = container.add_stream("aac", rate=self._rate, layout=layout)
        self.stream.bit_rate = config.audio_bit_rate
        self.stream.time_base = Fraction(1, self._rate)
        self._resampler = AudioResampler(format="fltp", layout=layout, rate=self._rate)
        self._layout, self._channels = layout, channels
        self._cut = cut
        self._end = None if cut.end is None else ticks((cut.end - cut.start), Fraction(1, self._rate))
        self._gap = round(config.audio_gap_s * self._rate)
        self._next = 0  # samples handed to the encoder so far

    def packets(self, frames: Iterator[AudioFrame]) -> Iterator[tuple[Fraction, Packet]]:
        """Encode ``frames`` (times of the source) to packets with times of the video."""
        for frame in reordered(frames, self._channels):
            for part in self._resampler.resample(frame):
                yield from self._encode(part)
            if self._end is not None and self._next >= self._end:
                break
        else:
            for part in self._resampler.resample(None):
                yield from self._encode(part)
        for time, packet in self._timed(self.stream.encode(None)):
            # The last packet is filled up with silence: kept only if at least half of it is sound.
            if (time * self._rate) + _AAC_PACKET // 2 <= self._next:
                yield time, packet

    def _encode(self, frame: AudioFrame) -> Iterator[tuple[Fraction, Packet]]:
        samples = frame.to_ndarray()
        for piece in self._placed(samples, self._position(frame)):
            kept = piece if self._end is None else piece[:, : max(self._end - self._next, 0)]
            if kept.shape[1]:
                yield from self._timed(self.stream.encode(self._frame(kept)))

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
