"""Liveness, readiness, Prometheus metrics and JSON logs of one server, over a real socket."""

from __future__ import annotations

import json
import logging

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from personalive.server.monitoring import JsonFormatter
from support.live_checks import expect_error, generous, turned
from support.live_server import LiveServer, running
from support.waiting import wait_until

TOKEN = "a token"


@pytest.fixture(scope="module")
def guarded(engine):
    with running(lambda: engine, token=TOKEN, server=generous()) as found:
        yield found


def samples(server: LiveServer) -> dict[str, float]:
    """Every sample of ``/metrics`` as name and labels."""
    answer = server.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_probe_needs_no_token_and_the_metrics_do(guarded: LiveServer):
    with httpx2.Client(base_url=guarded.address) as stranger:
        assert stranger.get("/healthz").json() == {"status": "live"}
        assert stranger.get("/readyz").json() == {"status": "ready"}
        expect_error(stranger.get("/metrics"), "wrong_token", 401)


def test_the_metrics_are_those_of_what_happened(
    guarded: LiveServer, images: np.ndarray, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "personalive")
    before = samples(guarded)
    assert before["personalive_ready"] == 1
    assert before["personalive_session_limit"] == guarded.worker.session_limit
    client = guarded.open()
    client.put_portrait(images[0])
    socket = client.connect()
    socket.drive(iter(turned(images[1], 7) * 100), 24)
    during = samples(guarded)
    assert during["personalive_sessions"] == 1
    assert during["personalive_frames_total"] >= 24
    assert during["personalive_frames_per_second"] > 0
    assert during["personalive_step_seconds"] > 0
    assert during["process_resident_memory_bytes"] > 1e7
    for stage in ("queue", "window", "compute"):
        median, high = (during[f"personalive_delay_seconds {quantile} {stage}"] for quantile in ("0.5", "0.95"))
        assert 0 <= median <= high
    socket.close()
    client.request("DELETE")
    after = samples(guarded)
    assert after["personalive_sessions"] == 0
    assert after["personalive_frames_total"] >= during["personalive_frames_total"]  # kept of sessions that are gone
    assert after["personalive_sessions_opened_total"] == before.get("personalive_sessions_opened_total", 0) + 1
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    told = [line["message"] for line in lines if line.get("session") == client.opened["id"]]
    assert told == ["session opened", "session ended: ended by its owner"]
    assert client.opened["key"] not in json.dumps(lines)


def test_a_draining_server_opens_no_session_and_goes_on_with_those_it_has(guarded: LiveServer, images: np.ndarray):
    client = guarded.open()
    guarded.app.state.sessions.draining = True
    try:
        expect_error(guarded.http.get("/readyz"), "not_ready", 503)
        expect_error(guarded.http.post("/api/sessions", json={}), "not_ready", 503)
        assert guarded.http.get("/healthz").status_code == 200
        assert samples(guarded)["personalive_ready"] == 0
        assert client.put_portrait(images[0]).status_code == 200
    finally:
        guarded.app.state.sessions.draining = False
    client.request("DELETE")


def test_a_server_whose_model_cannot_be_loaded_is_not_alive():
    def fail():
        raise ValueError("no model")

    with running(fail, server=generous(failures_before_stop=1)) as server:
        wait_until(lambda: server.worker.state == "failed")
        expect_error(server.http.get("/healthz"), "not_ready", 503)
        expect_error(server.http.get("/readyz"), "not_ready", 503)


def test_a_fault_is_one_line_with_its_traceback():
    record = logging.LogRecord("personalive.live", logging.ERROR, "file", 1, "a session %s", ("failed",), None)
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["message"]) == ("error", "a session failed")
    assert "ValueError: why" in found["traceback"]
