"""Clips whose sound lists its channels one by one, which PyAV frees twice."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.audio.layout import AudioLayout

_LABELS = {"FL": 1, "FR": 2, "FC": 3, "LFE": 4, "BL": 33, "BR": 34, "SL": 5, "SR": 6, "BC": 9}  # CoreAudio


def write_custom_order(path: Path, tones: dict[str, float]) -> Path:
    """QuickTime sound whose channels are listed one by one: PCM with a 'chan' atom of descriptions."""
    layout = AudioLayout({2: "stereo", 4: "4.0", 8: "7.1"}[len(tones)])
    rate = 48_000
    time = np.arange(rate // 2) / rate
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, width=64, height=48)
        video.pix_fmt = "yuv420p"
        stream = out.add_stream("pcm_s16le", rate=rate, layout=layout)
        for _ in range(12):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(video.encode(None))
        samples = np.stack([0.5 * np.sin(2 * np.pi * hz * time) for hz in tones.values()], axis=1)
        packed = np.ascontiguousarray((samples * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    _describe_channels(path, [_LABELS[name] for name in tones])
    return path


def _describe_channels(path: Path, labels: list[int]) -> None:
    """Put a 'chan' atom with one description per channel behind the sound's sample entry."""
    content = path.read_bytes()
    body = (0).to_bytes(4) + (0).to_bytes(4) + (0).to_bytes(4) + len(labels).to_bytes(4)
    body += b"".join(label.to_bytes(4) + bytes(16) for label in labels)
    atom = (8 + len(body)).to_bytes(4) + b"chan" + body
    at = content.index(b"sowt", content.index(b"stsd")) if content.count(b"sowt") else -1
    path.write_bytes(_with_atom(content, at - 4, atom))


def _with_atom(content: bytes, entry: int, atom: bytes) -> bytes:
    """``atom`` as the last child of the sample entry at ``entry``, all parents grown (the moov comes last)."""
    found = content.find(b"chan", entry)
    size = int.from_bytes(content[entry : entry + 4])
    if 0 <= found < entry + size:  # the muxer's own goes
        old = int.from_bytes(content[found - 4 : found])
        content = _resized(content, entry, -old, found - 4, b"", old)
        size -= old
    return _resized(content, entry, len(atom), entry + size, atom, 0)


def _resized(content: bytes, entry: int, grow: int, at: int, new: bytes, drop: int) -> bytes:
    data = bytearray(content)
    for place in (entry, *_parents(content, entry)):
        data[place : place + 4] = (int.from_bytes(data[place : place + 4]) + grow).to_bytes(4)
    return bytes(data[:at]) + new + bytes(data[at + drop :])


def _parents(content: bytes, inside: int) -> list[int]:
    found, at, end = [], 0, len(content)
    while at < end:
        size, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if at < inside < at + size and kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
            found.append(at)
            end = at + size
            at += 16 if kind == b"stsd" else 8
        else:
            at += max(size, 8)
    return found
