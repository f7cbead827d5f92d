"""Controls of a running session: refused outside their range, and with the engine from the next chunk."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import simplejpeg

from personalive.engine.engine import Engine
from personalive.engine.state import Motion
from support.live_checks import expect_error, held, send_at_once
from support.live_server import jpeg
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"expresion": 1}, "expresion"),
        ({"expression": 2.1}, "expression"),
        ({"pose": "sideways"}, "pose"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"mirror": 1}, "mirror"),
        ([], "JSON object"),
        ("expression", "JSON object"),
    ],
)
def test_controls_outside_their_range_are_refused_and_nothing_changes(client, values, message):
    before = client.request("GET", "/controls").json()
    assert message in expect_error(client.request("PATCH", "/controls", json=values), "bad_request", 400)
    assert client.request("GET", "/controls").json() == before


@pytest.fixture
def calls(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Record the arguments of the engine's calls."""
    seen: dict[str, list[Any]] = {"encode_motion": [], "step": []}
    read, step = engine.encode_motion, engine.step

    def reading(frames: np.ndarray) -> Motion:
        seen["encode_motion"].append(frames)
        return read(frames)

    def stepping(state: Any, window: Any, noise: Any = None, **named: Any) -> Any:
        seen["step"].append({"threshold": state.keyframe_threshold, **named})
        return step(state, window, noise, **named)

    monkeypatch.setattr(engine, "encode_motion", reading)
    monkeypatch.setattr(engine, "step", stepping)
    return seen


def test_controls_reach_the_engine_with_the_next_chunk(server, client, socket, camera, calls):
    values = {"expression": 0.5, "head_motion": 1.5, "pose": "relative", "smoothing": 0.25, "keyframes": False}
    assert (
        client.request("PATCH", "/controls", json=values).json() | values == client.request("GET", "/controls").json()
    )
    send_at_once(server, client, socket, [next(camera)], [1])
    wait_until(lambda: calls["step"])
    used = calls["step"][0]["controls"]
    assert {name: getattr(used, name) for name in values} == values
    assert calls["step"][0]["threshold"] == np.inf
    socket.receive_until(
        lambda: any(
            m["type"] == "state" and m["state"]["controls"] == client.request("GET", "/controls").json()
            for m in socket.messages
        )
    )


def test_a_mirrored_driver_is_read_mirrored(server, client, socket, camera, calls):
    image = next(camera)
    seen = simplejpeg.decode_jpeg(jpeg(image), fastdct=True)
    send_at_once(server, client, socket, [image], [1])
    wait_until(lambda: calls["encode_motion"])
    client.request("PATCH", "/controls", json={"mirror": True}).raise_for_status()
    send_at_once(server, client, socket, [image], [2])
    wait_until(lambda: len(calls["encode_motion"]) > 1)
    np.testing.assert_array_equal(calls["encode_motion"][0][0], seen)
    np.testing.assert_array_equal(calls["encode_motion"][1][0], seen[:, ::-1])


def test_the_next_frame_becomes_neutral_once_when_asked_for(server, client, socket, camera, calls):
    for number in range(1, 4):
        with held(server, client):
            if number == 2:
                assert client.request("POST", "/neutral").status_code == 204
        send_at_once(server, client, socket, [next(camera)], [number])
        wait_until(lambda n=number: len(calls["encode_motion"]) == n)
    send_at_once(server, client, socket, [next(camera)], [4])
    wait_until(lambda: len(calls["encode_motion"]) == 4)
    cuts = [call["cut"] for call in calls["step"]]
    assert cuts.count(0) == 1
    assert set(cuts) == {0, None}
    assert cuts[0] is None


def test_delayed_frames_come_no_sooner(client, socket, camera):
    delay_ms = 1500
    client.request("PATCH", "/controls", json={"delay_ms": delay_ms}).raise_for_status()
    late_ms = []
    while len(late_ms) < 10:
        before = len(socket.frames)
        socket.drive(camera, 1)
        now_us = time.monotonic_ns() / 1e3
        late_ms += [(now_us - header.capture_us) / 1e3 for header, _ in socket.frames[before:] if header.sequence]
    assert min(late_ms) >= delay_ms
