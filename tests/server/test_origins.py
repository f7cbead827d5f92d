"""Pages of other origins: those named with ``--origin`` may use every route, all others none."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from personalive.engine.engine import Engine
from support.live_checks import expect_error, generous
from support.live_server import LiveServer, running

FRIEND, STRANGER = "https://friend.example", "https://friend.example.evil.example"
ROUTES = [
    ("GET", "/api/status"),
    ("POST", "/api/sessions"),
    ("PATCH", "/api/sessions/x/controls"),
    ("PUT", "/api/sessions/x/portrait"),
    ("DELETE", "/api/sessions/x"),
    ("POST", "/api/sessions/x/whip"),
    ("GET", "/api/jobs/x/result"),
]


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[LiveServer]:
    with running(lambda: engine, origins=[FRIEND + "/"], token="secret", server=generous()) as found:
        yield found


def preflight(server: LiveServer, origin: str, method: str, path: str) -> httpx2.Response:
    """Preflight of ``fetch`` with a bearer token and a typed body."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return server.http.request("OPTIONS", path, headers=headers)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_named_origin_may_fetch_with_a_token(server: LiveServer, method: str, path: str):
    asked = preflight(server, FRIEND, method, path)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == FRIEND
    assert method in asked.headers["access-control-allow-methods"].split(", ")
    assert {"authorization", "content-type"} <= set(asked.headers["access-control-allow-headers"].lower().split(", "))
    assert "access-control-allow-credentials" not in asked.headers
    answer = server.http.request(method, path, headers={"Origin": FRIEND})
    assert answer.status_code != 405
    assert answer.headers["access-control-allow-origin"] == FRIEND  # refusals too are for the page to read
    assert "Origin" in answer.headers["vary"]
    assert "Location" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", [STRANGER, "http://friend.example", FRIEND + ":444", FRIEND + "/", "null"])
def test_other_origins_may_not(server: LiveServer, origin: str):
    for method, path in ROUTES:
        asked = preflight(server, origin, method, path)
        assert asked.status_code == 400
        assert "access-control-allow-origin" not in asked.headers
    for path in ("/", "/api/status"):
        answer = server.http.get(path, headers={"Origin": origin})
        expect_error(answer, "wrong_origin", 403)
        assert "access-control-allow-origin" not in answer.headers


def test_a_named_origin_opens_a_session_and_reads_a_refused_token(server: LiveServer):
    opened = server.http.post("/api/sessions", json={}, headers={"Origin": FRIEND})
    assert opened.status_code == 201
    assert set(opened.json()) == {"id", "key", "view_key", "image_size_px", "idle_s"}
    refused = server.http.post("/api/sessions", json={}, headers={"Origin": FRIEND, "Authorization": "Bearer wrong"})
    expect_error(refused, "wrong_token", 401)
    assert refused.headers["access-control-allow-origin"] == FRIEND


def test_every_answer_has_the_security_headers(server: LiveServer):
    for answer in (server.http.get("/"), server.http.get("/api/status"), server.http.get("/api/none")):
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
