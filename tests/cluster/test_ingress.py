"""The ingress in front of two live servers, over real sockets, without Ray: routes, moves, and what is refused."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import numpy as np
import pytest
import uvicorn
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from personalive.cluster.config import ServeClusterConfig
from personalive.cluster.ingress import Ingress, build_app
from personalive.cluster.replica import NO_RATE_LIMIT, add_link, portrait_file
from personalive.engine.engine import Engine
from personalive.live.session import Session
from personalive.server.auth import Auth
from support.live_checks import expect_error, generous, turned
from support.live_server import LiveClient, LiveServer, Socket, running
from support.small_engine import noise_images, small_engine
from support.waiting import PATIENCE_S, wait_until

TOKEN, SECRET = "token-of-the-server", "token-of-the-replicas"
CONFIG = ServeClusterConfig(state_interval_s=0.05, heartbeat_s=60.0, place_s=10.0)


class Cluster(LiveServer):
    """Ingress with two replicas, ``a`` and ``b``, as a server to clients."""

    ingress: Ingress
    replicas: dict[str, LiveServer]

    def join(self, ident: str) -> None:
        """Make a replica known, and wait until it is linked."""
        loop = self.ingress.http._loop
        loop.call_soon_threadsafe(self.ingress.links.join, ident, self.replicas[ident].address)
        wait_until(lambda: ident in self.ingress.table.replicas)

    def home(self, client: LiveClient) -> str:
        """Replica of a session; it has the session, the other does not."""
        ident = client.opened["id"]
        (found,) = (name for name, server in self.replicas.items() if ident in server.app.state.sessions._sessions)
        return found


@pytest.fixture(scope="module")
def engine() -> Engine:
    return small_engine()


@pytest.fixture
def cluster(engine: Engine) -> Iterator[Cluster]:
    limits = generous(max_sessions=2, **NO_RATE_LIMIT)
    with ExitStack() as stack:
        replicas = {}
        for name in "ab":
            replicas[name] = stack.enter_context(running(lambda: engine, token=SECRET, server=limits))
            add_link(replicas[name].app, CONFIG)
        found = stack.enter_context(ingress_of(replicas))
        for name in replicas:
            found.join(name)
        yield found


@contextmanager
def ingress_of(replicas: dict[str, LiveServer]) -> Iterator[Cluster]:
    """An ingress on a free port."""
    settings = generous()
    app = build_app(Auth(TOKEN, config=settings), SECRET, settings, CONFIG)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio")
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        wait_until(lambda: runner.started and bool(runner.servers))
        address = f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
        with ExitStack() as clients:
            cluster = Cluster(address, app, replicas["a"].worker, TOKEN, clients)
            cluster.ingress, cluster.replicas = app.state.ingress, replicas
            yield cluster
    finally:
        runner.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return noise_images(8, 7)


def driven(client: LiveClient, images: np.ndarray) -> Socket:
    """A session's socket, once frames come."""
    client.put_portrait(images[0])
    socket = client.connect()
    socket.drive(itertools.cycle(turned(images[1], 7)), 6)
    return socket


def kill(server: LiveServer) -> None:
    """Cut all connections of a server without a word, and take no more, as where its process is killed."""
    runner = server.runner

    def cut() -> None:
        for listener in runner.servers:
            listener.close()
        for connection in list(runner.server_state.connections):
            connection.transport.abort()

    runner.servers[0].get_loop().call_soon_threadsafe(cut)


def gauge(cluster: Cluster, name: str) -> dict[str, float]:
    """A metric by replica; by "" for that of the whole."""
    families = text_string_to_metric_families(cluster.http.get("/metrics").text)
    return {s.labels.get("replica", ""): s.value for f in families for s in f.samples if s.name == name}


def test_one_address_for_all(cluster: Cluster, images: np.ndarray):
    clients = [cluster.open() for _ in range(4)]
    assert sorted(map(cluster.home, clients)) == ["a", "a", "b", "b"]
    refused = cluster.http.post("/api/sessions", json={})
    assert "(4 sessions are open): you are number 1" in expect_error(refused, "server_full", 503)
    assert cluster.http.get("/api/status").json()["sessions"] == {"open": 4, "limit": 4, "waiting": 1}
    assert gauge(cluster, "personalive_cluster_sessions") == {"": 4}
    assert gauge(cluster, "personalive_sessions") == {"a": 2, "b": 2}
    sockets = [driven(client, images) for client in clients[:2]]
    assert {cluster.home(client) for client in clients[:2]} == {"a", "b"}
    for socket in sockets:
        socket.close()
    clients[0].request("DELETE")
    answer = cluster.http.post("/api/sessions", json={"ticket": refused.json()["error"]["ticket"]})
    assert answer.status_code == 201
    # a job stays with its replica
    job = cluster.http.post("/api/jobs", json={}).json()
    key = {"Authorization": f"Bearer {job['key']}"}
    assert cluster.http.get(f"/api/jobs/{job['id']}", headers=key).json()["state"] == "open"
    assert cluster.http.delete(f"/api/jobs/{job['id']}", headers=key).status_code == 204


def test_what_is_for_others_is_refused(cluster: Cluster, images: np.ndarray):
    client = cluster.open()
    with httpx2.Client(base_url=cluster.address) as stranger:
        expect_error(stranger.post("/api/sessions", json={}), "wrong_token", 401)
        expect_error(stranger.post("/api/jobs", json={}), "wrong_token", 401)
        expect_error(stranger.put("/api/credentials", content=b"x"), "wrong_token", 401)
        expect_error(stranger.get("/metrics"), "wrong_token", 401)
        expect_error(stranger.get(client.path), "wrong_token", 401)
        expect_error(stranger.put(f"{client.path}/portrait", content=b"x"), "wrong_token", 401)
        expect_error(stranger.get("/cluster/link"), "not_found", 404)
        expect_error(stranger.post("/cluster/sessions", json={}), "bad_request", 405)
        expect_error(stranger.get("/", headers={"Origin": "https://elsewhere.example"}), "wrong_origin", 403)
        assert stranger.get("/").text.startswith("<!doctype html>")
        assert stranger.get("/static/js/app.js").status_code == 200
    with httpx2.Client(base_url=cluster.replicas["a"].address) as stranger:
        expect_error(stranger.post("/cluster/sessions", json={}), "wrong_token", 401)
    expect_error(client.request("PUT", "/portrait", content=b"no image"), "unusable_input", 422)
    expect_error(cluster.http.get("/api/sessions/none"), "not_found", 404)


def test_sessions_of_a_replica_that_leaves_or_dies_go_on_elsewhere(cluster: Cluster, images: np.ndarray):
    clients = [cluster.open() for _ in range(2)]
    sockets = [driven(client, images) for client in clients]
    clients[0].request("PATCH", "/controls", json={"expression": 1.5})
    generation = clients[0].request("GET").json()["generation"]
    first, second = map(cluster.home, clients)
    assert first != second
    time.sleep(3 * CONFIG.state_interval_s)  # the ingress hears of the controls
    cluster.replicas[first].app.state.sessions.draining = True
    wait_until(lambda: len(cluster.replicas[second].app.state.sessions) == 2)
    sockets[0].receive_until(lambda: sockets[0].message("moved"))
    last = sockets[0].frames[-1][0].index
    sockets[0].drive(itertools.cycle(turned(images[1], 7)), 6)
    assert sockets[0].frames[-1][0].index > last + CONFIG.frames_skipped / 2
    state = clients[0].request("GET").json()
    assert (state["portrait"], state["generation"], state["controls"]["expression"]) == (True, generation + 1, 1.5)
    wait_until(lambda: len(cluster.replicas[first].app.state.sessions) == 0)
    assert not sockets[1].message("moved")
    # now the other one dies, and the first is there again
    cluster.replicas[first].app.state.sessions.draining = False
    kill(cluster.replicas[second])
    wait_until(lambda: second not in cluster.ingress.table.replicas)
    for socket, moves in zip(sockets, (2, 1), strict=True):
        socket.receive_until(lambda: sum(m["type"] == "moved" for m in socket.messages) == moves)  # noqa: B023
        socket.drive(itertools.cycle(turned(images[1], 7)), 6)
        socket.close()
    assert gauge(cluster, "personalive_cluster_sessions_moved_total") == {"": 3}
    assert gauge(cluster, "personalive_cluster_sessions_lost_total") == {"": 0}


def test_a_session_keeps_its_portrait_though_the_ingress_is_a_new_one(cluster: Cluster, images: np.ndarray):
    clients = [cluster.open() for _ in range(2)]
    clients[0].put_portrait(images[0])
    gone, stays = map(cluster.home, clients)
    shown = cluster.replicas[gone].app.state.sessions.find(clients[0].opened["id"])
    asyncio.run_coroutine_threadsafe(cluster.ingress.links.close(), cluster.ingress.http._loop).result(PATIENCE_S)
    with ingress_of(cluster.replicas) as new:
        for name in "ab":
            new.join(name)
        wait_until(lambda: len(new.ingress.table.sessions) == 2)
        wait_until(lambda: [p.portrait is None for p in new.ingress.table.sessions.values()].count(False) == 1)
        kill(cluster.replicas[gone])
        wait_until(lambda: len(cluster.replicas[stays].app.state.sessions) >= 2)
        restored = cluster.replicas[stays].app.state.sessions.find(clients[0].opened["id"])
        wait_until(lambda: restored.state()["portrait"])

        def image_of(session: Session) -> np.ndarray:
            future = asyncio.run_coroutine_threadsafe(session.run_on_worker(lambda s: s.image), session.loop)
            return future.result(PATIENCE_S)

        np.testing.assert_array_equal(image_of(restored), image_of(shown))
        second = new.ingress.table.sessions[clients[1].opened["id"]]
        assert second.portrait is None  # it never had one


def test_a_portrait_too_large_for_the_next_replica_as_png_travels_as_jpeg(images: np.ndarray):
    as_png = portrait_file(images[0], 10_000_000)
    np.testing.assert_array_equal(Image.open(io.BytesIO(as_png)), images[0])
    as_jpeg = portrait_file(images[0], len(as_png) - 1)
    assert len(as_jpeg) < len(as_png)
    assert np.abs(np.asarray(Image.open(io.BytesIO(as_jpeg)), float) - images[0]).mean() < 2


def test_a_session_without_any_replica_left_ends_with_a_reason(cluster: Cluster, images: np.ndarray):
    client = cluster.open()
    socket = driven(client, images)
    object.__setattr__(CONFIG, "place_s", 0.5)
    for name in "ab":
        kill(cluster.replicas[name])
    socket.receive_until(lambda: socket.message("ended"))
    expect_error(client.request("GET"), "not_found", 404)
    expect_error(cluster.http.get("/readyz"), "not_ready", 503)
    expect_error(cluster.http.post("/api/sessions", json={}), "not_ready", 503)
