"""OpenAPI: every JSON answer has a typed schema, and real answers and messages validate against it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from personalive.live.controls import LiveControls, control_ranges
from personalive.server import schemas
from personalive.server.config import ServerConfig
from support import golden
from support.clips import write_clip
from support.live_checks import until_stats
from support.live_server import LiveClient, LiveServer, Socket, png

MESSAGE = TypeAdapter(schemas.Message)


@pytest.fixture(scope="module")
def described(server: LiveServer) -> dict[str, Any]:
    return server.http.get("/openapi.json").json()


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation, called "METHOD path"."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def json_schemas(contents: dict[str, Any]) -> list[dict[str, Any]]:
    """Schemas of the JSON among the contents of a body or answer."""
    return [found["schema"] for kind, found in contents.get("content", {}).items() if kind == "application/json"]


def check_typed(schema: dict[str, Any], described: dict[str, Any], where: str) -> None:
    """Fail on anything that says no more than "object" or "array" at any depth."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        check_typed(described["components"]["schemas"][name], described, f"{where} {name}")
        return
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        for part in parts:
            check_typed(part, described, where)
        return
    assert "type" in schema, f"{where}: {schema}"
    if schema["type"] == "array":
        check_typed(schema["items"], described, f"{where}[]")
    if schema["type"] == "object":
        values = schema.get("properties") or {"*": schema.get("additionalProperties")}
        for name, value in values.items():
            assert isinstance(value, dict), f"{where} is a bare object"
            check_typed(value, described, f"{where}.{name}")


def test_every_json_body_and_answer_is_typed(described: dict[str, Any]):
    checked = 0
    for name, operation in operations(described):
        answers = operation["responses"]
        assert json_schemas(answers["default"]) == [{"$ref": "#/components/schemas/ErrorAnswer"}], name
        for contents in [*answers.values(), operation.get("requestBody", {})]:
            for schema in json_schemas(contents):
                check_typed(schema, described, name)
                checked += 1
    assert checked > 40
    check_typed({"$ref": "#/components/schemas/StatsMessage"}, described, "message")


def test_no_name_of_the_protocol_is_lost(described: dict[str, Any]):
    """Clients of others rely on them: a rename breaks those, however well the page and its description follow."""
    kept = json.loads((golden.FOLDER / "protocol_names.json").read_text(encoding="utf-8"))
    schemas_now = described["components"]["schemas"]
    now = {name: schemas_now.get(name, {}).get("properties", {}).keys() for name in kept}
    assert [f"{name}.{field}" for name, fields in kept.items() for field in fields if field not in now[name]] == []


def test_every_answer_is_described(described: dict[str, Any]):
    for name, operation in operations(described):
        for status, answer in operation["responses"].items():
            assert status == "204" or "content" in answer or name == "GET /api/gallery/{name}", f"{name}: {status}"


def test_addresses_that_need_a_key_say_so(described: dict[str, Any]):
    public = {"GET /healthz", "GET /readyz", "GET /api/status", "GET /api/gallery", "GET /api/gallery/{name}"}
    assert {name for name, operation in operations(described) if "security" not in operation} == public


@pytest.mark.parametrize("change", [{}, {"extra": 1}])
def test_answers_name_all_their_fields(server: LiveServer, client: LiveClient, change: dict[str, Any]):
    """With one field too many, none validates: so a new field cannot go out undescribed."""
    body = client.request("GET").json()
    for model, answer in [
        (schemas.Status, server.http.get("/api/status").json()),
        (schemas.SessionState, body),
        (schemas.Controls, body["controls"]),
        (schemas.ErrorAnswer, client.request("GET", key="wrong").json()),
    ]:
        fits = TypeAdapter(model).validator.isinstance_python({**answer, **change}, strict=True)
        assert fits == (not change), model


def test_answers_are_those_described(server: LiveServer, client: LiveClient, images: np.ndarray, tmp_path):
    assert client.request("GET").json() == server.app.state.sessions.find(client.opened["id"]).state()
    assert client.request("GET", "/controls").json() == asdict(LiveControls())
    changed = client.request("PATCH", "/controls", json={"expression": 2, "smoothing": 0.5})
    assert '{"expression":2,"mouth":1.0,' in changed.text  # as it was sent
    for item in server.http.get("/api/gallery").json():
        schemas.GalleryItem.model_validate(item)
    clip = write_clip(tmp_path / "clip.mp4", list(images), range(8))
    driver = client.request("PUT", "/clip", content=clip.read_bytes()).json()
    assert set(driver) == {"duration_s", "fps"}
    assert client.request("POST", "/template", json={"recording": True}).json()["recording"] is True
    job = server.http.post("/api/jobs", json={"seed": 1}).json()
    assert set(job) == {"id", "key"}
    state = server.http.get(f"/api/jobs/{job['id']}", headers={"Authorization": f"Bearer {job['key']}"}).json()
    schemas.JobAnswer.model_validate(state, strict=True)
    full = {"kind": "server_full", "message": "full", "ticket": "t", "position": 1, "retry_after_s": 2.0}
    schemas.ErrorAnswer.model_validate({"error": full}, strict=True)


def test_messages_are_those_described(client: LiveClient, socket: Socket, images: np.ndarray):
    socket.drive(itertools.cycle(images), 4)
    socket.connection.send('{"type": "ping", "at_ms": 5}')
    socket.connection.send("{}")
    until_stats(socket)
    client.request("DELETE")
    socket.receive_until(lambda: socket.message("ended"))
    assert {message["type"] for message in socket.messages} == {"state", "stats", "error", "pong", "ended"}
    for message in socket.messages:
        MESSAGE.validate_python(message)
    stats = socket.message("stats")
    assert stats is not None
    assert set(stats["stats"]) == set(schemas.Stats.model_fields)


def test_the_status_has_every_limit_and_range(server: LiveServer):
    status = server.http.get("/api/status").json()
    assert status["limits"] == {name: getattr(ServerConfig(), name) for name in schemas.Limits.model_fields}
    assert status["controls"] == control_ranges(max_steps=4)
    assert list(schemas.Controls.model_fields) == list(asdict(LiveControls()))


def test_ranges_are_in_the_description(described: dict[str, Any]):
    found = described["components"]["schemas"]["Controls"]["properties"]
    body = described["paths"]["/api/sessions/{ident}/controls"]["patch"]["requestBody"]
    sent = body["content"]["application/json"]["schema"]["properties"]
    for name, control in control_ranges().items():
        for schema in (found[name], sent[name]):
            assert schema.get("minimum") == control.get("min")
            assert schema.get("maximum") == pytest.approx(control.get("max"))


def test_a_portrait_and_a_session_are_answered_as_described(server: LiveServer, images: np.ndarray):
    client = server.open()
    assert set(client.opened) == set(schemas.OpenedSession.model_fields)
    answer = client.request("PUT", "/portrait", content=png(images[0])).json()
    schemas.PortraitAnswer.model_validate(answer, strict=True)
    client.request("DELETE")
