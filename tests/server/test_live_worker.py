"""Failures of the worker: what is restarted, who is informed, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.errors import CheckpointError
from personalive.live.config import LiveConfig
from personalive.live.worker import Worker
from support.live_checks import check_error, expect_error, generous, session_of, turned
from support.live_server import LiveServer, Socket, running
from support.waiting import wait_until


def opened(server: LiveServer, image: np.ndarray) -> tuple[Any, Socket]:
    """A session with a portrait, and its socket."""
    client = server.open()
    client.put_portrait(image).raise_for_status()
    return client, client.connect()


def breaking(real: Callable[..., Any], fault: BaseException) -> tuple[Callable[..., Any], threading.Event]:
    """``real``, which raises ``fault`` once after the event is set."""
    armed = threading.Event()

    def call(*args: Any, **named: Any) -> Any:
        if armed.is_set():
            armed.clear()
            raise fault
        return real(*args, **named)

    return call, armed


# --- faults ---------------------------------------------------------------------------------------------------


def test_an_unexpected_fault_ends_the_session_it_met_and_no_other(engine, images, monkeypatch, caplog):
    step, armed = breaking(engine.step, RuntimeError("something at /tmp/secret"))
    monkeypatch.setattr(engine, "step", step)
    with running(lambda: engine, server=generous()) as server:
        (_, other), (client, socket) = opened(server, images[0]), opened(server, images[1])
        camera = itertools.cycle(turned(images[2], 7))
        armed.set()
        socket.send_frame(next(camera))
        socket.receive_until(lambda: socket.message("ended"))
        reason = socket.message("ended")["reason"]
        check_error({"error": {"kind": "internal", "message": reason}}, "internal")
        assert "something" not in reason
        expect_error(client.request("GET"), "not_found", 404)
        other.drive(camera, 20)
        assert server.http.get("/api/status").json()["state"] == "ready"
    assert "a session failed" in caplog.text


def test_an_unexpected_fault_with_a_portrait_is_typed(engine, images, monkeypatch, caplog):
    start, armed = breaking(engine.start, RuntimeError("something at /tmp/secret"))
    monkeypatch.setattr(engine, "start", start)
    with running(lambda: engine, server=generous()) as server:
        client = server.open()
        armed.set()
        expect_error(client.put_portrait(images[0]), "internal", 500)
        other = server.open()
        assert other.put_portrait(images[0]).status_code == 200
    assert "a session failed" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the test kills it
def test_a_worker_that_dies_is_started_again_and_the_sessions_go_on(engine, images, monkeypatch):
    """They get a message meanwhile, and their portraits afterwards: a newer generation, and indices that go on."""
    read, armed = breaking(engine.encode_motion, SystemExit())
    monkeypatch.setattr(engine, "encode_motion", read)
    with running(lambda: engine, server=generous()) as server:
        (client, socket), (_, other) = opened(server, images[0]), opened(server, images[1])
        camera = itertools.cycle(turned(images[2], 7))
        socket.drive(camera, 20)
        dead = server.worker._thread
        armed.set()
        socket.send_frame(next(camera))
        wait_until(lambda: not dead.is_alive())
        for one in (socket, other):
            one.receive_until(
                lambda s=one: "restarted" in (s.message("state") or {"state": {"message": ""}})["state"]["message"]
            )
            one.receive_until(lambda s=one: s.message("state")["state"]["message"] == "")
        assert client.request("GET").json()["generation"] == 2
        assert client.request("GET").json()["portrait"] is True
        since = len(socket.frames)
        socket.drive(camera, 20)
        assert {header.generation for header, _ in socket.frames[since + 8 :]} == {2}
        indices = [header.index for header, _ in socket.frames]
        assert indices == sorted(set(indices))
        other.drive(camera, 20)


def test_the_server_serves_at_once_and_changes_to_the_prepared_backend(engine: Engine, images):
    """Sessions begin anew with their portraits; while motion is recorded the change waits."""
    faster = Engine(engine.networks, backend=Backend(engine.networks, name="prepared"), name="small")
    may_end = threading.Event()

    def make() -> Engine:
        may_end.wait()
        return faster

    with running(lambda: engine, server=generous()) as server:
        server.worker.prepare(make)
        client, socket = opened(server, images[0])
        camera = itertools.cycle(turned(images[1], 7))
        socket.drive(camera, 12)
        assert server.http.get("/api/status").json()["backend"] == "eager"
        client.request("POST", "/template", json={"recording": True}).raise_for_status()
        may_end.set()
        socket.drive(camera, 12)
        assert server.worker.engine is engine
        client.request("POST", "/template", json={"recording": False}).raise_for_status()
        wait_until(lambda: server.http.get("/api/status").json()["backend"] == "prepared")
        assert client.request("GET").json()["generation"] == 2
        since = len(socket.frames)
        socket.drive(camera, 20)
        assert {header.generation for header, _ in socket.frames[since + 8 :]} == {2}
        assert client.request("GET", "/template").status_code == 200


def out_of_memory(*_: object, **__: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("fails", "says"),
    [("to open", "no faster backend could be prepared"), ("to serve", "cannot serve")],
)
def test_a_backend_that_cannot_be_prepared_costs_nobody_anything(
    engine: Engine, images, monkeypatch, caplog, fails: str, says: str
):
    other = Engine(engine.networks, backend=Backend(engine.networks, name="prepared"), name="small")
    monkeypatch.setattr(other, "step", out_of_memory)
    with running(lambda: engine, server=generous()) as server:
        _, socket = opened(server, images[0])
        camera = itertools.cycle(turned(images[1], 7))
        socket.drive(camera, 8)
        server.worker.prepare(out_of_memory if fails == "to open" else lambda: other)
        wait_until(lambda: says in caplog.text)
        socket.drive(camera, 20)
        status = server.http.get("/api/status").json()
        assert (status["state"], status["backend"]) == ("ready", "eager")


def test_a_model_that_cannot_be_loaded_is_reported_and_not_tried_again():
    tries = []

    def load() -> Engine:
        tries.append(1)
        raise CheckpointError("unet.safetensors: is cut off; download it again")

    with running(load, server=generous()) as server:
        status = server.http.get("/api/status").json()
        assert (status["state"], status["message"]) == ("failed", "unet.safetensors: is cut off; download it again")
        assert status["model"] is None
        message = expect_error(server.http.post("/api/sessions", json={}), "not_ready", 503)
        assert "cut off" in message
        server.worker.check()
        assert len(tries) == 1


def test_while_the_model_loads_no_session_is_opened(engine):
    go, read = threading.Event(), threading.Event()

    def load(on_progress) -> Engine:
        on_progress(0.75)
        on_progress(0.25, "preparing it, once")
        read.set()
        go.wait(30)
        return engine

    worker = Worker(load)
    try:
        assert worker.progress is None
        worker.start()
        assert read.wait(30)
        assert (worker.state, worker.progress, worker.message) == ("loading", 0.25, "preparing it, once")
        worker.check()  # alive: nothing to do
        assert worker.session_limit == 1
    finally:
        go.set()
        worker.stop()
    assert (worker.state, worker.progress) == ("stopped", None)


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("apart_s", "state"), [(10.0, "failed"), (40.0, "loading")])
def test_three_failures_within_a_minute_are_enough(apart_s, state, caplog):
    clock, tries = FakeClock(), []

    def load(_) -> Engine:
        tries.append(1)
        raise RuntimeError("the device is lost")

    worker = Worker(load, clock=clock)
    worker.start()
    for _ in range(3):
        worker._thread.join(30)
        clock.now += apart_s
        worker.check()
    worker._thread.join(30)
    assert worker.state == state
    assert len(tries) == (3 if state == "failed" else 4)
    assert ("3 times" in worker.message) == (state == "failed")
    worker.stop()
    assert "the worker stopped" in caplog.text


# --- slow viewers ---------------------------------------------------------------------------------------------


def test_a_viewer_that_reads_slowly_sees_fewer_frames_and_not_old_ones(engine, images):
    """One reads all, one a tenth of that, one never answers: only the last two lose frames."""
    with running(lambda: engine, live=LiveConfig(stats_interval_s=0.1), server=generous()) as server:
        client, quick = opened(server, images[0])
        camera = itertools.cycle(turned(images[2], 7))
        slow, deaf = (client.connect(client.opened["view_key"], "?role=viewer") for _ in range(2))
        deaf.answers = False
        delays_ms: list[tuple[float, float]] = []
        quick.drive(camera, 40)
        while len(delays_ms) < 14:
            quick.drive(camera, 10)
            before = len(slow.frames)
            slow.receive_until(lambda n=before: len(slow.frames) > n)
            now_us = time.monotonic_ns() / 1e3
            delays_ms += [tuple((now_us - frames[-1][0].capture_us) / 1e3 for frames in (slow.frames, quick.frames))]
        deaf.drain(time.monotonic() + 0.2)
        assert len(deaf.frames) <= LiveConfig().unacknowledged_frames
        lags = [slow_ms - quick_ms for slow_ms, quick_ms in delays_ms if slow_ms < 1e9]
        shown = [header.index for header, _ in quick.frames]
        assert shown[-1] - slow.frames[-1][0].index <= 16 * 10  # eight on their way, each ten frames long, twice over
        assert len(lags) == len(delays_ms)
        skipped = [b.index - a.index for (a, _), (b, _) in itertools.pairwise(slow.frames)]
        assert max(skipped) > 1
        quick.receive_until(lambda: quick.message("stats"))
        assert [b - a for a, b in itertools.pairwise(shown)].count(1) >= 0.9 * len(shown)


# --- nothing is left ------------------------------------------------------------------------------------------


def resident_mb() -> float:
    """Memory of this process in RAM, without what was freed and is kept for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def own_threads() -> int:
    """Without those of the event loop's pool, which has a handful at most and makes them as they are needed."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


@pytest.mark.isolated
def test_clients_that_are_torn_away_leave_nothing(engine, images):
    with running(lambda: engine, live=LiveConfig(idle_s=1.0), server=generous(max_sessions=64)) as server:
        sessions = server.app.state.sessions
        camera = itertools.cycle(turned(images[2], 7))
        loop: asyncio.AbstractEventLoop | None = None

        async def tasks() -> int:
            return len(asyncio.all_tasks())

        def count_tasks() -> int:
            assert loop is not None
            return asyncio.run_coroutine_threadsafe(tasks(), loop).result(30)

        def cycle(count: int) -> None:
            nonlocal loop
            for _ in range(count):
                client = server.open()
                loop = session_of(server, client).loop
                socket = client.connect()
                client.put_portrait(images[0])
                for _ in range(3):
                    socket.send_frame(next(camera))
                socket.receive_until(lambda s=socket: s.frames)
                socket.tear()
            wait_until(lambda: not len(sessions) and not len(server.worker._scheduler))
            wait_until(lambda: not list(sessions.folder.iterdir()))

        cycle(3)
        wait_until(lambda: count_tasks() <= 6)
        threads, tasks_before, before_mb = own_threads(), count_tasks(), resident_mb()
        cycle(8)
        wait_until(lambda: count_tasks() <= tasks_before)
        wait_until(lambda: own_threads() <= threads)
        assert resident_mb() - before_mb < 5  # 0.6 MB for each client
        assert json.loads(server.http.get("/api/status").text)["sessions"]["open"] == 0
