"""A whole session against a real server: its stages, its drivers, and how it ends."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from personalive.live.config import LiveConfig
from support.live_checks import check_error, errors_of, exchange, expect_error, generous, session_of, until_stats
from support.live_server import LiveServer, running
from support.waiting import wait_until

# --- stage ----------------------------------------------------------------------------------------------------


def test_the_state_goes_from_empty_to_live(server, images, camera):
    client = server.open()
    socket = client.connect()
    socket.receive_until(lambda: socket.message("state"))
    assert socket.message("state")["state"]["stage"] == "empty"
    client.put_portrait(images[0])
    socket.receive_until(lambda: socket.message("state")["state"]["stage"] == "waiting")
    socket.drive(camera, 1)
    socket.receive_until(lambda: socket.message("state")["state"]["stage"] == "live")
    assert client.request("GET").json() == socket.message("state")["state"]
    assert client.request("GET").json()["face"] is True
    client.request("DELETE")


def test_while_paused_no_frame_comes_and_then_it_goes_on(client, socket, camera):
    socket.drive(camera, 16)
    assert client.request("PATCH", json={"playing": False}).json()["stage"] == "paused"
    until_stats(socket, 4)  # a chunk that was under way is out
    before = len(socket.frames)
    for _ in range(8):
        socket.send_frame(next(camera))
    until_stats(socket, 4)
    assert len(socket.frames) == before
    assert client.request("PATCH", json={"playing": True}).json()["playing"] is True
    socket.drive(camera, 8)
    indices = [header.index for header, _ in socket.frames]
    assert indices[before] >= indices[before - 1] + 1


def test_after_a_swap_is_answered_the_old_portrait_is_gone(client, socket, images, camera):
    """Also from the queues: here many frames wait for their time."""
    client.request("PATCH", "/controls", json={"delay_ms": 3000}).raise_for_status()
    socket.drive(camera, 30)
    answer = client.put_portrait(images[4])
    assert answer.json()["generation"] == 2
    exchange(socket, 1)
    before = len(socket.frames)
    client.request("PATCH", "/controls", json={"delay_ms": 0}).raise_for_status()
    socket.drive(camera, 30)
    generations = [header.generation for header, _ in socket.frames]
    assert generations == sorted(generations)
    assert generations[before:].count(1) <= 1  # on its way when the answer was
    assert generations[-1] == 2
    assert client.request("GET").json()["generation"] == 2


def test_a_new_portrait_shows(client, socket, images, camera):
    """The same driver, another head: the ease-in frames, which nothing else has touched, differ."""
    socket.drive(camera, 13)
    client.put_portrait(images[4])
    socket.receive_until(lambda: socket.message("state")["state"]["generation"] == 2)
    first = len(socket.frames)
    socket.drive(camera, 13)
    swapped = next(image for header, image in socket.frames[first:] if header.generation == 2)
    assert np.any(swapped != socket.frames[0][1])


def test_a_portrait_may_have_any_common_shape(client, images):
    """Portraits are framed here, not by the client."""
    wide = np.ascontiguousarray(np.tile(images[3], (2, 3, 1)))
    assert client.put_portrait(wide).status_code == 200


def test_the_gallery_has_a_portrait_and_a_clip_that_work(client, server):
    shown = {entry["name"]: entry["kind"] for entry in server.http.get("/api/gallery").json()}
    assert set(shown.values()) == {"portrait", "clip"}
    for name, kind in shown.items():
        media = server.http.get(f"/api/gallery/{name}")
        assert media.headers["content-type"].startswith("image/" if kind == "portrait" else "video/")
        assert client.request("PUT", f"/{kind}?gallery={name}").status_code == 200
    assert client.request("GET").json()["generation"] == 2


# --- drivers --------------------------------------------------------------------------------------------------


def test_camera_then_clip_then_camera(client, socket, camera):
    """Frames of a clip carry no number; those of the camera do. One drives at a time."""
    socket.drive(camera, 14)
    clip = client.request("PUT", "/clip?gallery=performance").json()
    assert clip["duration_s"] > 1
    assert clip["fps"] > 1
    assert client.request("GET").json()["driver"] == "clip"
    since = len(socket.frames)
    socket.drive(camera, 40)  # goes on sending, and is ignored
    while not (driven := list(itertools.dropwhile(lambda h: h.sequence, (h for h, _ in socket.frames[since:])))):
        socket.drive(camera, 8)  # what the camera had in flight comes out first
    socket.drive(camera, 20)
    driven += [header for header, _ in socket.frames[-20:]]
    assert all(h.sequence == h.capture_us == 0 and h.times.of_driver for h in driven)
    assert client.request("PATCH", json={"driver": "camera"}).json()["driver"] == "camera"
    sent = socket.send_frame(next(camera))
    socket.drive(camera, 40)
    assert socket.frames[-1][0].sequence > sent


def test_a_clip_can_be_played_again_and_only_where_there_is_one(client, socket):
    message = expect_error(client.request("PATCH", json={"driver": "clip"}), "bad_request", 400)
    assert "clip" in message
    client.request("PUT", "/clip?gallery=performance").raise_for_status()
    client.request("PATCH", json={"driver": "camera"}).raise_for_status()
    since = len(socket.frames)
    assert client.request("PATCH", json={"driver": "clip", "loop": False}).json()["driver"] == "clip"
    socket.receive_until(lambda: len(socket.frames) >= since + 20)
    expect_error(client.request("PATCH", json={"driver": "template"}), "bad_request", 400)


def test_only_the_newest_clip_is_kept(server, client):
    """However many are sent, also two at once."""
    folder = session_of(server, client).folder
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: client.request("PUT", "/clip?gallery=performance").status_code, range(6)))
    assert answers == [200] * 6
    assert len(list(folder.iterdir())) == 1
    assert len([thread for thread in threading.enumerate() if thread.name == "personalive-player"]) == 1


def test_a_clip_that_breaks_while_it_plays_is_an_error_without_paths(server, client, socket):
    answer = client.request("PUT", "/clip?gallery=performance")
    answer.raise_for_status()
    session = session_of(server, client)
    for path in session.folder.iterdir():
        path.unlink()
    client.request("PATCH", json={"driver": "clip"}).raise_for_status()  # from its beginning
    socket.receive_until(lambda: errors_of(socket))
    assert "clip" in check_error(errors_of(socket)[0], "unusable_input")


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


# --- ends -----------------------------------------------------------------------------------------------------


def folders(server: LiveServer) -> list[Path]:
    return list(server.app.state.sessions.folder.iterdir())


def test_an_ended_session_says_so_and_leaves_nothing(server, images):
    client = server.open()
    client.put_portrait(images[0])
    client.request("PUT", "/clip?gallery=performance").raise_for_status()
    assert any(any(folder.iterdir()) for folder in folders(server))
    sockets = [client.connect(), client.connect(client.opened["view_key"], "?role=viewer")]
    assert client.request("DELETE").status_code == 204
    for socket in sockets:
        with pytest.raises(ConnectionClosed) as closed:
            socket.receive_until(lambda: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4410
        assert socket.message("ended") == {"type": "ended", "reason": "ended by its owner"}
    expect_error(client.request("GET"), "not_found", 404)
    expect_error(client.request("DELETE"), "not_found", 404)
    assert not folders(server)


def test_a_session_without_connections_ends_and_one_with_a_socket_stays(engine):
    with running(lambda: engine, live=LiveConfig(idle_s=0.2), server=generous()) as server:
        kept = server.open()
        socket = kept.connect()
        left = server.open()
        wait_until(lambda: left.request("GET").status_code == 404)
        assert kept.request("GET").status_code == 200
        socket.close()
        wait_until(lambda: kept.request("GET").status_code == 404)
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
        assert holder.request("DELETE").status_code == 204
        for asked in ({"ticket": tickets[1]}, {}):  # not the first in line
            expect_error(server.http.post("/api/sessions", json=asked), "server_full", 503)
        first = server.open(ticket=tickets[0])
        answer = server.http.post("/api/sessions", json={"ticket": tickets[1]})
        assert (answer.json()["error"]["ticket"], answer.json()["error"]["position"]) == (tickets[1], 1)
        first.request("DELETE")
        server.open(ticket=tickets[1])


def test_a_server_that_ends_tells_its_sessions(engine, images, camera):
    with running(lambda: engine, server=generous()) as server:
        client = server.open()
        client.put_portrait(images[0])
        socket = client.connect()
        socket.drive(camera, 4)
        root = server.app.state.sessions.folder
        server.stop()
        with pytest.raises(ConnectionClosed):
            socket.receive_until(lambda: False)
    assert socket.message("ended") == {"type": "ended", "reason": "the server is shutting down"}
    assert not root.exists()
