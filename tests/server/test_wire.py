"""Binary messages, byte for byte as docs/protocol.md says."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.live.errors import RefusedError
from personalive.live.frames import FinishedHeader, StageTimes
from personalive.server.wire import (
    DRIVING_BYTES,
    FINISHED_BYTES,
    DrivingHeader,
    pack_driving,
    pack_finished,
    unpack_driving,
    unpack_finished,
)

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
F32 = st.floats(0, 1e6, width=32)


@given(U32, U64, st.binary(min_size=1, max_size=64))
def test_driving_frames_survive_the_way(sequence, capture_us, jpeg):
    header = DrivingHeader(sequence, capture_us)
    assert unpack_driving(pack_driving(header, jpeg)) == (header, jpeg)


@given(U32, U64, U32, U32, st.builds(StageTimes, F32, F32, F32, F32), st.binary(min_size=1, max_size=64))
def test_finished_frames_survive_the_way(sequence, capture_us, generation, index, times, jpeg):
    header = FinishedHeader(sequence, capture_us, generation, index, times)
    assert unpack_finished(pack_finished(header, jpeg)) == (header, jpeg)


def test_a_driving_frame_lies_as_the_protocol_says():
    message = pack_driving(DrivingHeader(0x01020304, 0x1112131415161718), b"jpeg")
    assert DRIVING_BYTES == 16
    assert message[0:2] == b"PL"
    assert message[2] == 1  # version
    assert message[3] == 1  # kind
    assert message[4:8] == bytes([4, 3, 2, 1])
    assert message[8:16] == bytes([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11])
    assert message[16:] == b"jpeg"


def test_a_finished_frame_lies_as_the_protocol_says():
    header = FinishedHeader(7, 2**40 + 5, 3, 90, StageTimes(1.5, 20.25, 300.0, 4.75))
    message = pack_finished(header, b"jpeg")
    assert FINISHED_BYTES == 40
    assert (message[0:2], message[2], message[3]) == (b"PL", 1, 2)
    assert struct.unpack_from("<I", message, 4) == (7,)
    assert struct.unpack_from("<Q", message, 8) == (2**40 + 5,)
    assert struct.unpack_from("<I", message, 16) == (3,)
    assert struct.unpack_from("<I", message, 20) == (90,)
    assert [struct.unpack_from("<f", message, offset)[0] for offset in (24, 28, 32, 36)] == [1.5, 20.25, 300.0, 4.75]
    assert message[40:] == b"jpeg"


GOOD = pack_driving(DrivingHeader(1, 2), b"jpeg")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"PL",
        GOOD[:DRIVING_BYTES],  # nothing after the header
        b"XX" + GOOD[2:],
        GOOD[:2] + b"\x02" + GOOD[3:],  # of a later version
        GOOD[:3] + b"\x02" + GOOD[4:],  # a finished frame
    ],
)
def test_anything_else_is_refused_as_not_understood(message):
    with pytest.raises(RefusedError) as refusal:
        unpack_driving(message)
    assert refusal.value.kind == "bad_request"


@given(st.binary(max_size=80))
def test_no_bytes_do_worse_than_being_refused(message):
    try:
        header, jpeg = unpack_driving(message)
    except RefusedError:
        return
    assert pack_driving(header, jpeg) == message


@pytest.mark.parametrize("message", [b"PL", GOOD + bytes(60)])
def test_a_client_tells_other_messages_from_finished_frames(message):
    with pytest.raises(ValueError, match="finished frame"):
        unpack_finished(message)
