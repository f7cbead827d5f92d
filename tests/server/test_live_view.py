"""Clean views that outlive a session, and controls that only some models can follow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from personalive.engine.directions import Directions
from personalive.engine.engine import Engine
from support.live_checks import (
    check_error,
    errors_of,
    exchange,
    expect_error,
    send_at_once,
    session_of,
    turned,
    until_stats,
)
from support.live_server import LiveServer, Socket
from support.waiting import wait_until

KEY = "a-key-that-this-browser-keeps"


def viewer(server: LiveServer, key: str) -> Socket:
    names: Any = ["personalive.v1", f"key.{key}"]
    opened = connect(server.address.replace("http", "ws") + "/api/view/socket", subprotocols=names, close_timeout=1)
    return Socket(server.clients.enter_context(opened))


@pytest.fixture
def camera(images: np.ndarray) -> Iterator[np.ndarray]:
    return itertools.cycle(turned(images[1], 7))


def test_one_key_shows_the_newest_session_that_was_opened_with_it(server: LiveServer, images, camera):
    seen = []
    for number in range(2):
        client = server.open(view_key=KEY)
        assert client.opened["view_key"] == KEY
        client.put_portrait(images[number]).raise_for_status()
        watching, socket = viewer(server, KEY), client.connect()
        socket.drive(camera, 24)
        watching.receive_until(lambda w=watching: len(w.frames) >= 8)
        own = {header.index: image for header, image in socket.frames}
        shared = [(own[h.index], image) for h, image in watching.frames if h.index in own]
        assert shared
        assert all(np.array_equal(one, other) for one, other in shared)
        watching.send_frame(images[2])
        watching.receive_until(lambda w=watching: errors_of(w))
        assert "viewer" in check_error(errors_of(watching)[0], "bad_request")
        client.request("DELETE").raise_for_status()
        watching.receive_until(lambda w=watching: w.message("ended"))
        seen.append(client.opened["id"])
    assert seen[0] != seen[1]


@pytest.mark.parametrize("key", ["another-key-of-some-browser", "x"])
def test_a_key_without_a_session_shows_nothing(server: LiveServer, key):
    client = server.open(view_key=KEY)
    socket = viewer(server, key)
    socket.receive_until(lambda: errors_of(socket))
    assert "no session" in check_error(errors_of(socket)[0], "not_found")
    client.request("DELETE")


def test_the_view_key_opens_nothing_else(server: LiveServer):
    client = server.open(view_key=KEY)
    expect_error(client.request("GET", key=KEY), "wrong_token", 401)
    client.request("DELETE")


def test_a_pause_holds_at_once_though_frames_wait_for_their_time(server: LiveServer, images, camera):
    client = server.open()
    client.put_portrait(images[0]).raise_for_status()
    client.request("PATCH", "/controls", json={"delay_ms": 3000}).raise_for_status()
    socket = client.connect()
    socket.drive(camera, 30)  # by now many more are made and wait
    client.request("PATCH", json={"playing": False}).raise_for_status()
    exchange(socket, 1)
    before = len(socket.frames)
    until_stats(socket, 4)
    assert len(socket.frames) == before
    client.request("PATCH", json={"playing": True}).raise_for_status()
    socket.drive(camera, 4)
    client.request("DELETE")


# --- controls -------------------------------------------------------------------------------------------------


@pytest.fixture
def seeded(server: LiveServer, images):
    client = server.open(seed=5)
    client.put_portrait(images[0]).raise_for_status()
    yield client
    client.request("DELETE")


def test_a_new_seed_holds_for_the_noise_that_enters_next(server: LiveServer, seeded, engine, camera, monkeypatch):
    seeds, step = [], engine.step

    def stepping(state: Any, *window: Any, **named: Any) -> Any:
        seeds.append(state.seed)
        return step(state, *window, **named)

    monkeypatch.setattr(engine, "step", stepping)
    socket = seeded.connect()
    assert seeded.request("GET", "/controls").json()["seed"] == 5
    send_at_once(server, seeded, socket, [next(camera)], [1])
    wait_until(lambda: 5 in seeds)
    assert seeded.request("PATCH", "/controls", json={"seed": 7}).json()["seed"] == 7
    send_at_once(server, seeded, socket, [next(camera)], [1_000_000])
    wait_until(lambda: 7 in seeds)
    assert set(seeds) == {5, 7}


def test_other_steps_begin_the_stream_anew_and_no_more_than_the_model_has(
    server: LiveServer, seeded, engine, camera, monkeypatch
):
    assert server.http.get("/api/status").json()["controls"]["steps"] == {"default": None, "min": 1, "max": 4}
    in_flight, step = [], engine.step

    def stepping(state: Any, *window: Any, **named: Any) -> Any:
        in_flight.append(state.warmup_frames)
        return step(state, *window, **named)

    monkeypatch.setattr(engine, "step", stepping)
    socket, generation = seeded.connect(), seeded.request("GET").json()["generation"]
    for turn, (steps, frames) in enumerate(((None, 12), (2, 4), (1, 0), (4, 12))):
        assert seeded.request("PATCH", "/controls", json={"steps": steps}).json()["steps"] == steps
        send_at_once(server, seeded, socket, [next(camera)], [1 + 1_000_000 * turn])
        wait_until(lambda wanted=frames: in_flight[-1:] == [wanted])  # motion may be repeated before
        generation += steps is not None
        wait_until(lambda wanted=generation: seeded.request("GET").json()["generation"] == wanted)
    for wrong in (5, 0, 2.0, "2", True):
        expect_error(seeded.request("PATCH", "/controls", json={"steps": wrong}), "bad_request", 400)
    assert seeded.request("GET", "/controls").json()["steps"] == 4


def test_a_part_of_the_face_that_the_model_does_not_know_is_refused_and_all_goes_on(
    server: LiveServer, seeded, engine: Engine, images, camera, monkeypatch
):
    def agree(share: float) -> None:
        """Let the engine find directions on which people agree by so much."""
        directions = Directions(torch.eye(2, values), {"mouth": share, "eyes": share})
        monkeypatch.setitem(vars(engine.conditioner), "directions", directions)

    values = engine.encode_motion(images[:1]).tokens[0, 0].numel()
    agree(0.4)
    before = seeded.request("GET", "/controls").json()
    message = expect_error(
        seeded.request("PATCH", "/controls", json={"mouth": 0.5, "mirror": True}), "bad_request", 400
    )
    assert "leave mouth at 1" in message
    assert seeded.request("GET", "/controls").json() == before
    socket = seeded.connect()
    socket.drive(camera, 8)
    agree(0.9)
    assert seeded.request("PATCH", "/controls", json={"mouth": 0.5, "eyes": 0.0}).json()["eyes"] == 0.0
    assert session_of(server, seeded).controls.mouth == 0.5
    socket.drive(camera, 8)
