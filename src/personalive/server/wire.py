"""Binary messages of the WebSocket in both directions, little-endian (docs/protocol.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from personalive.live.errors import RefusedError
from personalive.live.frames import FinishedHeader, StageTimes

MAGIC, VERSION = b"PL", 1
DRIVING, FINISHED = 1, 2  # kinds
_DRIVING = struct.Struct("<2sBBIQ")
_FINISHED = struct.Struct("<2sBBIQII4f")
DRIVING_BYTES, FINISHED_BYTES = _DRIVING.size, _FINISHED.size


@dataclass(frozen=True, slots=True)
class DrivingHeader:
    """Header before the JPEG of a driving frame."""

    sequence: int
    capture_us: int


def unpack_driving(message: bytes) -> tuple[DrivingHeader, bytes]:
    """Split a client's binary message into header and JPEG.

    Raises:
        RefusedError: not such a message.
    """
    if len(message) <= DRIVING_BYTES:
        raise RefusedError(
            "bad_request", f"a driving frame has a header of {DRIVING_BYTES} bytes and a JPEG after it"
        )
    magic, version, kind, sequence, capture_us = _DRIVING.unpack_from(message)
    if magic != MAGIC or version != VERSION or kind != DRIVING:
        raise RefusedError("bad_request", "not a driving frame of protocol version 1: it begins with PL, 1, 1")
    return DrivingHeader(sequence, capture_us), message[DRIVING_BYTES:]


def pack_driving(header: DrivingHeader, jpeg: bytes) -> bytes:
    """Join header and JPEG of a driving frame, as clients send it."""
    return _DRIVING.pack(MAGIC, VERSION, DRIVING, header.sequence, header.capture_us) + jpeg


def pack_finished(header: FinishedHeader, jpeg: bytes) -> bytes:
    """Join header and JPEG of a finished frame."""
    t = header.times
    packed = _FINISHED.pack(
        MAGIC,
        VERSION,
        FINISHED,
        header.sequence,
        header.capture_us,
        header.generation,
        header.index,
        t.queue_ms,
        t.window_ms,
        t.compute_ms,
        t.pace_ms,
    )
    return packed + jpeg


def unpack_finished(message: bytes) -> tuple[FinishedHeader, bytes]:
    """Split a finished frame into header and JPEG, as clients read it.

    Raises:
        ValueError: not such a message.
    """
    if len(message) <= FINISHED_BYTES:
        raise ValueError("too short for a finished frame")
    magic, version, kind, sequence, capture_us, generation, index, *times = _FINISHED.unpack_from(message)
    if (magic, version, kind) != (MAGIC, VERSION, FINISHED):
        raise ValueError("not a finished frame")
    return FinishedHeader(sequence, capture_us, generation, index, StageTimes(*times)), message[FINISHED_BYTES:]
