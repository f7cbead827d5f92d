"""WHIP in and WHEP out over this machine's own network: what comes back, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import aioice.ice
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personalive.live.session import Session
from personalive.server.config import ServerConfig
from support.head_videos import heads
from support.small_model import SMALL_SIZE_PX
from support.waiting import wait_until
from support.whip_client import SDP, Client, blocks, distinct, post, publisher, recorded, sample_offer, watcher
from support.whip_server import LiveServer, live_server

FRAGMENT = "application/trickle-ice-sdpfrag"
FAST = ServerConfig(repeat_s=0.1, webrtc_viewers=2, max_sessions=100, min_session_fps=0.01)


@pytest.fixture(scope="module")
def portraits() -> list[np.ndarray]:
    return [next(iter(heads(seed, [0.0]))) for seed in (1, 2)]


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    return list(heads(3, [frame / 10 for frame in range(12)], side_px=96))


@pytest.fixture(scope="module")
def running(engine, tmp_path_factory) -> Iterator[LiveServer]:
    with live_server(engine, tmp_path_factory.mktemp("live"), server=FAST) as server:
        yield server


@pytest.fixture
def server(running: LiveServer, caplog) -> Iterator[LiveServer]:
    """The server, which must be as empty and as calm after the test as before."""
    caplog.set_level(logging.WARNING)
    yield running
    for session in running.sessions:
        running.close(session)
    wait_until(lambda: len(running.connections) == 0)
    wait_until(lambda: not any("aiortc" in name or "Connection" in name or "RTC" in name for name in running.tasks()))
    wait_until(lambda: not any("decoder" in thread.name for thread in threading.enumerate()))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def session(server: LiveServer, portraits) -> Session:
    return server.open(portraits[0])


@asynccontextmanager
async def closing(*clients: Client) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for client in clients:
            await client.close()


def test_a_clip_goes_in_and_its_animation_comes_out(server, session, clip, portraits):
    made = recorded(session)

    async def play() -> Client:
        driver = publisher(server, session.id, session.key, clip)
        viewer = watcher(server, session.id, session.view_key)
        async with closing(driver, viewer):
            await driver.connect()
            await viewer.connect()
            await viewer.until(lambda: session.state()["stage"] == "live")
            await viewer.more(20)
            assert session.connections == 2
            await on_worker(server, session, lambda stream: stream.set_portrait(portraits[1], session.controls))
            await viewer.until(lambda: made[-1].header.generation == 2)
            await viewer.more(20)
            for client in (driver, viewer):
                assert (await client.hang_up()).status == 204
                assert (await client.hang_up()).kind == "not_found"
                await client.until(lambda client=client: client.connection.connectionState == "closed")
        assert len(server.connections) == 0
        assert session.connections == 0
        assert not session._viewers
        return viewer

    viewer = asyncio.run(play())
    times = [frame.pts for frame in viewer.frames]
    assert all(later > earlier for earlier, later in pairwise(times))
    seen = [frame.to_ndarray(format="rgb24") for frame in viewer.frames]
    seen = [image for image in seen if image.mean() > 4]  # it begins black
    assert {image.shape for image in seen} == {(SMALL_SIZE_PX, SMALL_SIZE_PX, 3)}
    made = distinct(made)
    images = blocks(np.stack([frame.image for frame in made]))
    errors = np.stack([np.abs(images - image).mean((1, 2, 3)) for image in blocks(np.stack(seen))])
    shown = errors.argmin(1)
    assert (errors.min(1) < 0.5 * np.median(errors)).all()  # each is one of those made, but for the coding
    assert (np.diff(shown) >= 0).all()
    assert {made[place].header.generation for place in shown} == {1, 2}


def test_the_last_frame_is_repeated_while_nothing_comes(server, session, clip):
    async def play() -> None:
        driver = publisher(server, session.id, session.key, clip)
        viewer = watcher(server, session.id, session.key)
        async with closing(driver, viewer):
            await viewer.connect()
            black = await viewer.more(2)
            assert max(image.mean() for image in black) < 4
            await driver.connect()
            await viewer.until(lambda: viewer.frames[-1].to_ndarray(format="rgb24").mean() > 20)
            await on_worker(server, session, lambda stream: session.set_playing(False))
            await viewer.more(5)
            last = await viewer.more(1)
            while spread(last[-2:] + (another := await viewer.more(1))) > 1.0 or len(last) < 3:
                last += another
            assert last[-1].mean() > 20

    asyncio.run(play())


def test_sound_of_the_driver_reaches_the_viewer(server, session, clip):
    async def play() -> None:
        driver = publisher(server, session.id, session.key, clip, sound=True)
        viewer = watcher(server, session.id, session.key, sound=True)
        async with closing(driver, viewer):
            await viewer.connect()
            await driver.connect()
            await viewer.until(lambda: len(viewer.sound) >= 25)
            assert np.abs(np.concatenate(viewer.sound[10:25], axis=1)).mean() > 3_000

    asyncio.run(play())


def test_a_second_driver_takes_the_place_of_the_first(server, session, clip):
    async def play() -> None:
        first, second = (publisher(server, session.id, session.key, clip) for _ in range(2))
        async with closing(first, second):
            await first.connect()
            await second.connect()
            await first.until(lambda: first.connection.connectionState == "closed")
            assert (await first.hang_up()).kind == "not_found"
            assert len(server.connections) == 1
            received = session.inbox.received
            await second.until(lambda: session.inbox.received > received + 5)

    asyncio.run(play())


def test_a_killed_client_is_noticed(server, session, clip, monkeypatch):
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 1)

    async def play() -> None:
        driver = publisher(server, session.id, session.key, clip)
        async with closing(driver):
            await driver.connect()
            await driver.until(lambda: session.connections == 1)
            driver.pull_the_plug()
            await driver.until(lambda: session.connections == 0 and len(server.connections) == 0)

    asyncio.run(play())


def test_connections_end_with_their_session(server, session, clip):
    async def play() -> None:
        driver = publisher(server, session.id, session.key, clip)
        viewer = watcher(server, session.id, session.key)
        async with closing(driver, viewer):
            await driver.connect()
            await viewer.connect()
            await asyncio.to_thread(server.close, session)
            await viewer.until(lambda: len(server.connections) == 0)
            for client in (driver, viewer):
                await client.until(lambda client=client: client.connection.connectionState == "closed")

    asyncio.run(play())


def test_a_client_that_never_connects_is_given_up(engine, tmp_path):
    with live_server(engine, tmp_path, server=replace(FAST, connect_s=0.5)) as server:
        session = server.open()
        assert post(server, session, "whip", session.key).status == 201
        assert len(server.connections) == 1
        wait_until(lambda: len(server.connections) == 0)
        assert session.connections == 0


def test_ending_before_connecting_leaves_nothing(server, session, clip):
    async def play() -> None:
        driver = publisher(server, session.id, session.key, clip)
        async with closing(driver):
            await driver.call()
            assert (await driver.hang_up()).status == 204
            assert len(server.connections) == 0

    asyncio.run(play())


def test_candidates_may_trickle_in(server, session, clip):
    async def play() -> None:
        viewer = watcher(server, session.id, session.view_key)
        async with closing(viewer):
            offer = await viewer.offer()
            late = [
                line
                for line in offer.splitlines()
                if line.startswith(("a=candidate", "a=end-of", "a=mid", "a=ice-u"))
            ]
            bare = "\r\n".join(
                line for line in offer.splitlines() if not line.startswith(("a=candidate", "a=end-of"))
            )
            assert (await viewer.call(bare + "\r\n")).status == 201
            restart = await viewer.request("PATCH", viewer.location, "a=ice-ufrag:other\r\n", FRAGMENT)
            assert restart.kind == "unusable_input"
            assert (await viewer.request("PATCH", viewer.location, "hello", FRAGMENT)).kind == "bad_request"
            assert (await viewer.request("PATCH", viewer.location, "a=mid:0", SDP)).kind == "bad_request"
            assert (await viewer.request("PATCH", viewer.location, "\r\n".join(late), FRAGMENT)).status == 204
            await viewer.until(lambda: session.connections == 1)
            await viewer.more(1)

    asyncio.run(play())


def test_viewers_are_limited(server, session):
    async def play() -> None:
        viewers = [watcher(server, session.id, session.view_key) for _ in range(3)]
        async with closing(*viewers):
            assert [(await viewer.call()).status for viewer in viewers] == [201, 201, 503]
            await viewers[0].hang_up()
            assert (await viewers[2].call(viewers[2].connection.localDescription.sdp)).status == 201

    asyncio.run(play())


def test_endpoints_say_what_they_take(server, session):
    path = f"/api/sessions/{session.id}/whip"
    assert server.request("OPTIONS", path).headers["accept-post"] == SDP
    assert server.request("OPTIONS", f"{path}/x").headers["accept-patch"] == FRAGMENT
    for method in ("GET", "HEAD", "PUT"):
        assert server.request(method, path, key=session.key).status == 405


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"body": ""}, "bad_request"),
        ({"body": "hello"}, "bad_request"),
        ({"body": b"\xff\xfe"}, "bad_request"),
        ({"body": "v=0\r\nm=video\r\n"}, "bad_request"),
        ({"media_type": "application/json"}, "bad_request"),
        ({"media_type": ""}, "bad_request"),
        ({"body": "v=0\r\n" + "a=x\r\n" * 20_000}, "too_large"),
        ({"key": "wrong"}, "wrong_token"),
        ({"key": ""}, "wrong_token"),
        ({"path": "/api/sessions/none/whip"}, "not_found"),
    ],
)
def test_requests_that_are_refused(server, session, change, kind):
    request = {
        "path": f"/api/sessions/{session.id}/whip",
        "body": sample_offer("sendonly"),
        "key": session.key,
        "media_type": SDP,
    } | change
    path, body = request.pop("path"), request.pop("body")
    assert server.request("POST", path, body, **request).kind == kind
    assert len(server.connections) == 0


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (r"a=sendonly", "a=recvonly"),
        (r"a=sendonly", "a=inactive"),
        (r"a=sendonly\r\n", ""),
        (r"m=video", "m=audio"),
        (r"m=video", "m=application"),
        (r"(?s)m=video.*", ""),
        (r"a=fingerprint.*\r\n", ""),
        (r"a=ice-pwd.*\r\n", ""),
        (r"a=mid.*\r\n", ""),
        (r"a=rtcp-mux\r\n", ""),
        (r"a=setup.*\r\n", ""),
        (r"a=group:BUNDLE 0", "a=group:BUNDLE 7"),
        (r"a=candidate.*\r\n", ""),
        (r"a=rtpmap.*\r\n|a=fmtp.*\r\n|a=rtcp-fb.*\r\n", ""),
        (r"VP8|H264", "AV9"),
    ],
)
def test_offers_that_cannot_be_answered(server, session, pattern, instead):
    body = re.sub(pattern, instead, sample_offer("sendonly"))
    answer = server.request("POST", f"/api/sessions/{session.id}/whip", body, key=session.key, media_type=SDP)
    assert answer.kind == "bad_request"
    assert len(server.connections) == 0


def test_a_view_key_shows_and_does_not_drive(server, session):
    assert post(server, session, "whip", session.view_key).kind == "wrong_token"
    seen = post(server, session, "whep", session.view_key)
    assert seen.status == 201
    wrong = seen.headers["location"].replace("whep", "whip")
    assert server.request("DELETE", wrong, key=session.key).kind == "not_found"
    assert server.request("DELETE", seen.headers["location"], key="wrong").kind == "wrong_token"
    assert server.request("DELETE", seen.headers["location"], key=session.view_key).status == 204


def test_a_failed_second_offer_leaves_the_first_driver(server, session):
    first = post(server, session, "whip", session.key)
    broken = sample_offer("sendonly").replace("VP8", "AV9").replace("H264", "AV9")
    path = f"/api/sessions/{session.id}/whip"
    assert server.request("POST", path, broken, key=session.key, media_type=SDP).kind == "bad_request"
    assert server.request("DELETE", first.headers["location"], key=session.key).status == 204


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_offers_break_nothing(server, session, data):
    lines = sample_offer("sendonly").splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        line = lines[place]
        cut = data.draw(st.integers(0, len(line)))
        lines[place : place + 1] = data.draw(
            st.sampled_from([[], [line, line], [line[:cut]], [line[cut:]], [re.sub(r"\d+", "99999999999", line)]])
        )
    body = "\r\n".join(lines) + "\r\n"
    answer = server.request("POST", f"/api/sessions/{session.id}/whip", body, key=session.key, media_type=SDP)
    assert answer.status == 201 or answer.kind == "bad_request"
    if answer.status == 201:
        assert server.request("DELETE", answer.headers["location"], key=session.key).status == 204
    assert len(server.connections) == 0


def test_shutdown_ends_what_is_open(engine, tmp_path, clip, portraits, caplog):
    async def play(server: LiveServer) -> Client:
        session = server.open(portraits[0])
        viewer = watcher(server, session.id, session.key)
        await viewer.connect()
        await viewer.more(1)
        server.inside(server.connections.close_all)
        await viewer.until(lambda: viewer.connection.connectionState == "closed")
        return viewer

    with live_server(engine, tmp_path, server=FAST) as server:
        viewer = asyncio.run(play(server))
        assert len(server.connections) == 0
    assert viewer.frames
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def on_worker(server: LiveServer, session: Session, order) -> None:
    """Run something on the worker's thread."""

    async def run() -> None:
        await session.run_on_worker(order)

    await asyncio.to_thread(server.inside, run)


def spread(images: list[np.ndarray]) -> float:
    """Mean distance of images from their mean, in levels."""
    every = np.stack(images).astype(float)
    return float(np.abs(every - every.mean(0)).mean())
