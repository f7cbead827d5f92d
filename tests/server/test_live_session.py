"""A whole session against a real server: what is sent, what comes back, and how it ends."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from websockets.exceptions import ConnectionClosed

from personalive.config import LiveConfig, ServerConfig
from personalive.streaming.engine import Engine
from personalive.streaming.state import Motion
from support.live_checks import check_error, exchange, expect_error, generous, held, send_at_once, session_of, turned
from support.live_checks import errors_of as errors
from support.live_checks import until_stats as two_looks
from support.live_server import LiveClient, LiveServer, Socket, jpeg, running, wait_until


@pytest.fixture
def client(server: LiveServer, pictures: np.ndarray) -> Iterator[LiveClient]:
    """A session with a portrait."""
    client = server.open()
    assert client.put_portrait(pictures[0]).json() == {
        "note": "no face found: the largest centred square is used",
        "generation": 1,
    }
    yield client
    client.ask("DELETE")


@pytest.fixture
def socket(client: LiveClient) -> Iterator[Socket]:
    """Its driver's socket."""
    socket = client.connect()
    yield socket
    socket.close()


@pytest.fixture
def camera(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """A driver without end."""
    return itertools.cycle(turned(pictures[1], 7))


# --- frames ---------------------------------------------------------------------------------------------------


def test_frames_come_in_order_at_the_models_size_and_move(socket, camera):
    socket.drive(camera, 40)
    headers = [header for header, _ in socket.frames]
    images = [image for _, image in socket.frames]
    assert {image.shape for image in images} == {(64, 64, 3)}
    assert all(np.any(one != other) for one, other in itertools.pairwise(images[12:]))
    assert [h.index for h in headers] == sorted({h.index for h in headers})
    assert all(h.sequence == h.capture_us == 0 for h in headers if h.index < 12)  # the ease-in
    driven = [h for h in headers if h.index >= 12]
    assert driven
    assert all(h.sequence > 0 and h.capture_us > 0 for h in driven)
    assert [h.sequence for h in driven] == sorted(h.sequence for h in driven)
    assert all(min(h.times.queue_ms, h.times.window_ms, h.times.compute_ms, h.times.pace_ms) >= 0 for h in headers)
    assert all(h.times.window_ms > 0 for h in driven)


@dataclass
class Shadow:
    """What the engine alone makes of the same picks: bundles of new frames, by number from 1, 0 the last before."""

    engine: Engine
    state: Any
    last: Motion | None = None
    frames: list[np.ndarray] = field(default_factory=list)

    def take(self, pictures: list[np.ndarray], picks: list[tuple[int, int, float]]) -> None:
        new = sorted({number for low, high, _ in picks for number in (low, high)} - {0})
        seen = [simplejpeg.decode_jpeg(jpeg(pictures[number - 1]), fastdct=True) for number in new]
        read = self.engine.read(np.stack(seen))
        known = {number: read[place : place + 1] for place, number in enumerate(new)}
        if self.last is not None:
            known[0] = self.last
        parts = [
            known[low]
            if low == high
            else Motion.cat([known[low], known[high]]).between(*_both, torch.tensor([share]))
            for low, high, share in picks
        ]
        self.state, made = self.engine.step(self.state, Motion.cat(parts))
        self.last = known[max(new)]
        self.frames += [as_sent(image) for image in made.numpy()]


_both = (torch.tensor([0]), torch.tensor([1]))


def as_sent(image: np.ndarray) -> np.ndarray:
    """Through the server's JPEG."""
    quality = ServerConfig().jpeg_quality
    return simplejpeg.decode_jpeg(
        simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling="420", fastdct=True)
    )


TICK_US = 15_625  # 1/64 s, so that no rounding decides
BUNDLES = [  # capture times in ticks; picks of them; whose number each frame carries, counted over all bundles
    ([0, 2, 4, 6], [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 4, 0)], [1, 2, 3, 4]),  # a camera as fast as the model
    ([10, 14], [(0, 1, 0.5), (1, 1, 0), (1, 2, 0.5), (2, 2, 0)], [5, 5, 6, 6]),  # at half its rate
    ([*range(15, 23)], [(2, 2, 0), (4, 4, 0), (6, 6, 0), (8, 8, 0)], [8, 10, 12, 14]),  # at twice
    ([26], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [14, 15, 15, 15]),
    ([34], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [15, 16, 16, 16]),
    ([42], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [16, 17, 17, 17]),
    ([50], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [17, 18, 18, 18]),
]


def test_two_sessions_at_once_each_get_what_the_engine_alone_makes_of_their_frames(engine, pictures):
    """Bit for bit, whatever the camera's rate: neither the server nor the other session leaves a trace."""
    unbounded = LiveConfig(late_share=1e9, viewer_frames=1000, unanswered_frames=1000)
    with running(lambda: engine, live=unbounded, server=generous()) as server:
        clients, sockets, shadows, drivers = [], [], [], []
        for place in range(2):
            client = server.open(seed=place + 5)
            client.put_portrait(pictures[place])
            clients.append(client)
            sockets.append(client.connect())
            shadows.append(Shadow(engine, engine.start(pictures[place], seed=place + 5)))
            drivers.append(itertools.cycle(turned(pictures[place + 2], 7)))
        for ticks, picks, _ in BUNDLES:
            for client, socket, shadow, driver in zip(clients, sockets, shadows, drivers, strict=True):
                bundle = list(itertools.islice(driver, len(ticks)))
                send_at_once(server, client, socket, bundle, [TICK_US * tick for tick in ticks])
                shadow.take(bundle, picks)
        sequences = [0] * 12 + [sequence for *_, of_bundle in BUNDLES for sequence in of_bundle]
        captured = {0: 0} | dict(enumerate((TICK_US * t for ticks, *_ in BUNDLES for t in ticks), start=1))
        for socket, shadow in zip(sockets, shadows, strict=True):
            count = len(shadow.frames)
            socket.receive_until(lambda s=socket, n=count: len(s.frames) == n)
            assert [header.index for header, _ in socket.frames] == [*range(count)]
            assert [header.sequence for header, _ in socket.frames] == sequences[:count]
            assert all(header.capture_us == captured[header.sequence] for header, _ in socket.frames)
            for (_, image), expected in zip(socket.frames, shadow.frames, strict=True):
                np.testing.assert_array_equal(image, expected)
        assert any(np.any(one[1] != other[1]) for one, other in zip(*(s.frames for s in sockets), strict=True))


# --- stage ----------------------------------------------------------------------------------------------------


def test_the_stage_is_told_from_empty_to_live(server, pictures, camera):
    client = server.open()
    socket = client.connect()
    socket.receive_until(lambda: socket.message("state"))
    assert socket.message("state")["state"]["stage"] == "empty"
    client.put_portrait(pictures[0])
    socket.receive_until(lambda: socket.message("state")["state"]["stage"] == "waiting")
    socket.drive(camera, 1)
    socket.receive_until(lambda: socket.message("state")["state"]["stage"] == "live")
    assert client.ask("GET").json() == socket.message("state")["state"]
    assert client.ask("GET").json()["face"] is True
    client.ask("DELETE")


def test_while_paused_no_frame_comes_and_then_it_goes_on(client, socket, camera):
    socket.drive(camera, 16)
    assert client.ask("PATCH", json={"playing": False}).json()["stage"] == "paused"
    two_looks(socket, 4)  # a chunk that was under way is out
    before = len(socket.frames)
    for _ in range(8):
        socket.send_frame(next(camera))
    two_looks(socket, 4)
    assert len(socket.frames) == before
    assert client.ask("PATCH", json={"playing": True}).json()["playing"] is True
    socket.drive(camera, 8)
    indices = [header.index for header, _ in socket.frames]
    assert indices[before] >= indices[before - 1] + 1


def test_after_a_swap_is_answered_the_old_portrait_is_gone(client, socket, pictures, camera):
    """Also from the queues: here many frames wait for their time."""
    client.ask("PATCH", "/controls", json={"delay_ms": 3000}).raise_for_status()
    socket.drive(camera, 30)
    answer = client.put_portrait(pictures[4])
    assert answer.json()["generation"] == 2
    exchange(socket, 1)
    before = len(socket.frames)
    client.ask("PATCH", "/controls", json={"delay_ms": 0}).raise_for_status()
    socket.drive(camera, 30)
    generations = [header.generation for header, _ in socket.frames]
    assert generations == sorted(generations)
    assert generations[before:].count(1) <= 1  # on its way when the answer was
    assert generations[-1] == 2
    assert client.ask("GET").json()["generation"] == 2


def test_a_new_portrait_shows(client, socket, pictures, camera):
    """The same driver, another head: the ease-in frames, which nothing else has touched, differ."""
    socket.drive(camera, 13)
    client.put_portrait(pictures[4])
    socket.receive_until(lambda: socket.message("state")["state"]["generation"] == 2)
    first = len(socket.frames)
    socket.drive(camera, 13)
    swapped = next(image for header, image in socket.frames[first:] if header.generation == 2)
    assert np.any(swapped != socket.frames[0][1])


def test_the_gallery_has_a_portrait_and_a_clip_that_work(client, server):
    shown = {entry["name"]: entry["kind"] for entry in server.http.get("/api/gallery").json()}
    assert set(shown.values()) == {"portrait", "clip"}
    for name, kind in shown.items():
        media = server.http.get(f"/api/gallery/{name}")
        assert media.headers["content-type"].startswith("image/" if kind == "portrait" else "video/")
        assert client.ask("PUT", f"/{kind}?gallery={name}").status_code == 200
    assert client.ask("GET").json()["generation"] == 2


# --- drivers --------------------------------------------------------------------------------------------------


def test_camera_then_clip_then_camera(client, socket, camera):
    """Frames of a clip carry no number; those of the camera do. One drives at a time."""
    socket.drive(camera, 14)
    told = client.ask("PUT", "/clip?gallery=performance").json()
    assert told["duration_s"] > 1
    assert told["fps"] > 1
    assert client.ask("GET").json()["driver"] == "clip"
    since = len(socket.frames)
    socket.drive(camera, 40)  # goes on sending, and nobody listens
    while not (driven := list(itertools.dropwhile(lambda h: h.sequence, (h for h, _ in socket.frames[since:])))):
        socket.drive(camera, 8)  # what the camera had in flight comes out first
    socket.drive(camera, 20)
    driven += [header for header, _ in socket.frames[-20:]]
    assert all(h.sequence == h.capture_us == 0 and h.times.window_ms > 0 for h in driven)
    assert client.ask("PATCH", json={"driver": "camera"}).json()["driver"] == "camera"
    sent = socket.send_frame(next(camera))
    socket.drive(camera, 40)
    assert socket.frames[-1][0].sequence > sent


def test_a_clip_can_be_played_again_and_only_where_there_is_one(client, socket):
    message = expect_error(client.ask("PATCH", json={"driver": "clip"}), "bad_request", 400)
    assert "clip" in message
    client.ask("PUT", "/clip?gallery=performance").raise_for_status()
    client.ask("PATCH", json={"driver": "camera"}).raise_for_status()
    since = len(socket.frames)
    assert client.ask("PATCH", json={"driver": "clip", "loop": False}).json()["driver"] == "clip"
    socket.receive_until(lambda: len(socket.frames) >= since + 20)
    expect_error(client.ask("PATCH", json={"driver": "template"}), "bad_request", 400)


def test_only_the_newest_clip_is_kept(server, client):
    """However many are sent, also two at once."""
    folder = session_of(server, client).folder
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: client.ask("PUT", "/clip?gallery=performance").status_code, range(6)))
    assert answers == [200] * 6
    assert len(list(folder.iterdir())) == 1
    assert len([thread for thread in threading.enumerate() if thread.name == "personalive-player"]) == 1


def test_a_clip_that_breaks_while_it_plays_is_told_without_our_paths(server, client, socket):
    ask = client.ask("PUT", "/clip?gallery=performance")
    ask.raise_for_status()
    session = session_of(server, client)
    for path in session.folder.iterdir():
        path.unlink()
    client.ask("PATCH", json={"driver": "clip"}).raise_for_status()  # from its beginning
    socket.receive_until(lambda: errors(socket))
    assert "clip" in check_error(errors(socket)[0], "unusable_input")


def test_a_reconnected_socket_goes_on(client, socket, camera):
    socket.drive(camera, 20)
    socket.close()
    again = client.connect()
    again.drive(camera, 20)  # numbers begin anew
    assert again.frames[0][0].index > socket.frames[-1][0].index
    assert {header.generation for header, _ in again.frames} == {1}


def test_a_client_that_comes_back_with_another_clock_drives_on(client, socket, camera):
    """A page that was loaded again counts its time from zero."""
    socket.drive(camera, 20)
    socket.tear()
    again = client.connect()
    for number in itertools.count(1):
        again.send_frame(next(camera), 30_000 * number)
        again.drain(time.monotonic() + 0.02)
        if any(0 < header.capture_us <= 30_000 * number for header, _ in again.frames):
            break
        assert number < 1000
    again.close()


# --- controls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "told"),
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
def test_controls_outside_their_range_are_refused_and_nothing_changes(client, values, told):
    before = client.ask("GET", "/controls").json()
    assert told in expect_error(client.ask("PATCH", "/controls", json=values), "bad_request", 400)
    assert client.ask("GET", "/controls").json() == before


@pytest.fixture
def calls(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the engine is given from now on."""
    seen: dict[str, list[Any]] = {"read": [], "step": []}
    read, step = engine.read, engine.step

    def reading(frames: np.ndarray) -> Motion:
        seen["read"].append(frames)
        return read(frames)

    def stepping(state: Any, window: Any, noise: Any = None, **named: Any) -> Any:
        seen["step"].append({"threshold": state.keyframe_threshold, **named})
        return step(state, window, noise, **named)

    monkeypatch.setattr(engine, "read", reading)
    monkeypatch.setattr(engine, "step", stepping)
    return seen


def test_controls_reach_the_engine_with_the_next_chunk(server, client, socket, camera, calls):
    values = {"expression": 0.5, "head_motion": 1.5, "pose": "relative", "smoothing": 0.25, "keyframes": False}
    assert client.ask("PATCH", "/controls", json=values).json() | values == client.ask("GET", "/controls").json()
    send_at_once(server, client, socket, [next(camera)], [1])
    wait_until(lambda: calls["step"])
    used = calls["step"][0]["controls"]
    assert {name: getattr(used, name) for name in values} == values
    assert calls["step"][0]["threshold"] == np.inf
    socket.receive_until(
        lambda: any(
            m["type"] == "state" and m["state"]["controls"] == client.ask("GET", "/controls").json()
            for m in socket.messages
        )
    )


def test_a_mirrored_driver_is_read_mirrored(server, client, socket, camera, calls):
    picture = next(camera)
    seen = simplejpeg.decode_jpeg(jpeg(picture), fastdct=True)
    send_at_once(server, client, socket, [picture], [1])
    wait_until(lambda: calls["read"])
    client.ask("PATCH", "/controls", json={"mirror": True}).raise_for_status()
    send_at_once(server, client, socket, [picture], [2])
    wait_until(lambda: len(calls["read"]) > 1)
    np.testing.assert_array_equal(calls["read"][0][0], seen)
    np.testing.assert_array_equal(calls["read"][1][0], seen[:, ::-1])


def test_the_next_frame_becomes_neutral_once_when_asked_for(server, client, socket, camera, calls):
    for number in range(1, 4):
        with held(server, client):
            if number == 2:
                assert client.ask("POST", "/neutral").status_code == 204
        send_at_once(server, client, socket, [next(camera)], [number])
        wait_until(lambda n=number: len(calls["read"]) == n)
    send_at_once(server, client, socket, [next(camera)], [4])
    wait_until(lambda: len(calls["read"]) == 4)
    cuts = [call["cut"] for call in calls["step"]]
    assert cuts.count(0) == 1
    assert set(cuts) == {0, None}
    assert cuts[0] is None


def test_delayed_frames_come_no_sooner(client, socket, camera):
    delay_ms = 1500
    client.ask("PATCH", "/controls", json={"delay_ms": delay_ms}).raise_for_status()
    late_ms = []
    while len(late_ms) < 10:
        before = len(socket.frames)
        socket.drive(camera, 1)
        now_us = time.monotonic_ns() / 1e3
        late_ms += [(now_us - header.capture_us) / 1e3 for header, _ in socket.frames[before:] if header.sequence]
    assert min(late_ms) >= delay_ms


# --- viewers --------------------------------------------------------------------------------------------------


def test_a_viewer_sees_and_changes_nothing(client, socket, camera):
    viewer = client.connect(client.opened["view_key"], "?role=viewer")
    socket.drive(camera, 30)
    viewer.receive_until(lambda: len(viewer.frames) >= 8)
    own = {header.index: image for header, image in socket.frames}
    shown = [(own[header.index], image) for header, image in viewer.frames if header.index in own]
    assert shown
    for one, other in shown:
        np.testing.assert_array_equal(one, other)
    viewer.send_frame(next(camera))
    viewer.receive_until(lambda: errors(viewer))
    assert "viewer" in check_error(errors(viewer)[0], "bad_request")
    viewer.close()


def test_who_wants_no_frames_gets_messages_alone(client, socket, camera):
    quiet = client.connect(query="?frames=false")
    socket.drive(camera, 20)
    two_looks(quiet)
    assert quiet.message("stats")["stats"]["frames_per_s"] > 0
    assert not quiet.frames
    quiet.close()


def test_stats_tell_where_the_time_went(client, socket, camera):
    socket.drive(camera, 30)
    two_looks(socket)
    stats = socket.message("stats")["stats"]
    assert stats["step_ms"] > 0
    assert stats["camera_fps"] > 0
    assert stats["floor_ms"] == pytest.approx(15e3 / stats["frames_per_s"], rel=0.02)
    for stage in ("queue", "window", "compute", "pace"):
        assert 0 <= stats["latency_ms"][stage]["p50"] <= stats["latency_ms"][stage]["p95"]


# --- ends -----------------------------------------------------------------------------------------------------


def folders(server: LiveServer) -> list[Path]:
    return list(server.app.state.desk._folder.iterdir())


def test_an_ended_session_says_so_and_leaves_nothing(server, pictures):
    client = server.open()
    client.put_portrait(pictures[0])
    client.ask("PUT", "/clip?gallery=performance").raise_for_status()
    assert any(any(folder.iterdir()) for folder in folders(server))
    sockets = [client.connect(), client.connect(client.opened["view_key"], "?role=viewer")]
    assert client.ask("DELETE").status_code == 204
    for socket in sockets:
        with pytest.raises(ConnectionClosed) as closed:
            socket.receive_until(lambda: False)
        assert closed.value.rcvd.code == 4410
        assert socket.message("ended") == {"type": "ended", "reason": "ended by its owner"}
    expect_error(client.ask("GET"), "not_found", 404)
    expect_error(client.ask("DELETE"), "not_found", 404)
    assert not folders(server)


def test_a_session_that_nobody_is_at_ends_and_one_with_a_socket_stays(engine):
    with running(lambda: engine, live=LiveConfig(idle_s=0.2), server=generous()) as server:
        kept = server.open()
        socket = kept.connect()
        left = server.open()
        wait_until(lambda: left.ask("GET").status_code == 404)
        assert kept.ask("GET").status_code == 200
        socket.close()
        wait_until(lambda: kept.ask("GET").status_code == 404)
        wait_until(lambda: not folders(server))


def test_a_full_server_gives_places_in_line_and_keeps_their_order(engine):
    with running(lambda: engine, server=generous(max_sessions=1, waiting_places=2)) as server:
        holder = server.open()
        tickets = []
        for position in (1, 2):
            answer = server.http.post("/api/sessions", json={})
            expect_error(answer, "server_full", 503)
            error = answer.json()["error"]
            assert error["position"] == position
            assert error["retry_after_s"] > 0
            assert int(answer.headers["retry-after"]) >= 1
            tickets.append(error["ticket"])
        refused = server.http.post("/api/sessions", json={})
        expect_error(refused, "server_full", 503)
        assert "ticket" not in refused.json()["error"]
        assert server.http.get("/api/status").json()["sessions"] == {"open": 1, "limit": 1, "waiting": 2}
        assert holder.ask("DELETE").status_code == 204
        for asked in ({"ticket": tickets[1]}, {}):  # not their turn
            expect_error(server.http.post("/api/sessions", json=asked), "server_full", 503)
        first = server.open(ticket=tickets[0])
        answer = server.http.post("/api/sessions", json={"ticket": tickets[1]})
        assert (answer.json()["error"]["ticket"], answer.json()["error"]["position"]) == (tickets[1], 1)
        first.ask("DELETE")
        server.open(ticket=tickets[1])


def test_a_server_that_ends_tells_its_sessions(engine, pictures, camera):
    with running(lambda: engine, server=generous()) as server:
        client = server.open()
        client.put_portrait(pictures[0])
        socket = client.connect()
        socket.drive(camera, 4)
        root = server.app.state.desk._folder
        server.stop()
        with pytest.raises(ConnectionClosed):
            socket.receive_until(lambda: False)
    assert socket.message("ended") == {"type": "ended", "reason": "the server is shutting down"}
    assert not root.exists()


def test_a_picture_may_come_in_any_common_shape(client, pictures):
    """Portraits are framed here, not by the client."""
    wide = np.ascontiguousarray(np.tile(pictures[3], (2, 3, 1)))
    assert client.put_portrait(wide).status_code == 200
