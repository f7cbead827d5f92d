"""Bad input: each is refused with one typed line, leaves nothing behind, and disturbs no other session."""

from __future__ import annotations

import io
import itertools
import json
import socket as sockets
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from personalive.engine.engine import Engine
from personalive.live.config import LiveConfig
from personalive.server.wire import DrivingHeader, pack_driving
from support.clips import write_clip
from support.live_checks import check_error, errors_of, exchange, expect_error, generous, session_of, turned
from support.live_server import LiveClient, LiveServer, Socket, jpeg, png, running
from support.waiting import Patience, wait_until

LIMITS = generous(portrait_bytes=200_000, clip_bytes=300_000, frame_bytes=50_000, frame_pixels=250_000)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[LiveServer]:
    """With a token, and with limits that can be met without megabytes."""
    live = LiveConfig(stats_interval_s=0.1, idle_s=600.0)
    with running(lambda: engine, token="secret", live=live, server=LIMITS) as found:
        yield found


def open_session(server: LiveServer, portrait: np.ndarray) -> LiveClient:
    client = server.open()
    client.put_portrait(portrait).raise_for_status()
    return client


def close_session(server: LiveServer, client: LiveClient) -> None:
    """End it; no upload is left."""
    folder = session_of(server, client).folder
    client.request("DELETE")
    assert not folder.exists()


@pytest.fixture(scope="module")
def bystander(server: LiveServer, images: np.ndarray) -> tuple[LiveClient, Socket]:
    """Another user's session."""
    client = open_session(server, images[0])
    return client, client.connect()


@pytest.fixture(scope="module")
def target(server: LiveServer, images: np.ndarray) -> Iterator[LiveClient]:
    client = open_session(server, images[0])
    yield client
    close_session(server, client)


@pytest.fixture
def client(
    server: LiveServer, target: LiveClient, bystander: tuple[LiveClient, Socket], images: np.ndarray
) -> Iterator[LiveClient]:
    """Session that is sent bad things; afterwards no upload is left, and the other one still gets frames."""
    yield target
    assert not list(session_of(server, target).folder.iterdir())
    bystander[1].drive(itertools.cycle(turned(images[1], 7)), 4)
    assert not errors_of(bystander[1])


@pytest.fixture
def driven(server: LiveServer, client: LiveClient, images: np.ndarray) -> Iterator[LiveClient]:
    """Session without any driving frame yet."""
    driven = open_session(server, images[0])
    yield driven
    close_session(server, driven)


def closing_code(socket: Socket) -> int:
    """Receive until the server closes the socket."""
    with pytest.raises(ConnectionClosed) as closed:
        socket.receive_until(lambda: False)
    return closed.value.rcvd.code


def png_header(width: int, height: int) -> bytes:
    """Return a tiny file that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def flat_jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 9, 9)).save(buffer, "JPEG")
    return buffer.getvalue()


# --- images and clips ---------------------------------------------------------------------------------------

PORTRAITS = {
    "text": b"this is no image\n" * 10,
    "wide": png_header(50_000, 8),
    "wide and high": png_header(50_000, 20_000),
    "bomb": png_header(30_000, 30_000),
    "one pixel": png_header(1, 1),
    "cut off": png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[:500],
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n",
}


@pytest.mark.parametrize("name", PORTRAITS)
def test_portraits_that_cannot_be_used(client, name):
    expect_error(client.request("PUT", "/portrait", content=PORTRAITS[name]), "unusable_input", 422)
    assert client.request("GET").json()["generation"] == 1  # the portrait before stays


def clip(tmp_path: Path) -> bytes:
    images = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)
    return write_clip(tmp_path / "clip.mp4", images, range(8)).read_bytes()


@pytest.mark.parametrize("name", ["text", "cut off", "playlist", "list of files", "sound of nothing"])
def test_clips_that_cannot_be_used(client, name, tmp_path):
    whole = clip(tmp_path)
    body = {
        "text": b"this is no video\n" * 10,
        "cut off": whole[: len(whole) // 2],
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "list of files": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "sound of nothing": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24),
    }[name]
    message = expect_error(client.request("PUT", "/clip", content=body), "unusable_input", 422)
    assert "passwd" not in message
    assert client.request("GET").json()["driver"] == "camera"


def test_motion_files_that_cannot_be_used(client):
    expect_error(client.request("PUT", "/template", content=b"\xff" * 100), "unusable_input", 422)


@pytest.mark.parametrize(("kind", "limit"), [("portrait", LIMITS.portrait_bytes), ("clip", LIMITS.clip_bytes)])
def test_uploads_that_are_empty_or_too_large(client, kind, limit):
    expect_error(client.request("PUT", f"/{kind}", content=b""), "bad_request", 400)
    expect_error(client.request("PUT", f"/{kind}", content=bytes(limit + 1)), "too_large", 413)
    chunks = itertools.repeat(bytes(10_000), limit // 10_000 + 1)  # without its length
    expect_error(client.request("PUT", f"/{kind}", content=chunks), "too_large", 413)


def test_an_upload_that_is_cut_off(server, client):
    host, port = server.address.removeprefix("http://").split(":")
    folder = session_of(server, client).folder
    with sockets.create_connection((host, int(port))) as raw:
        head = f"PUT {client.path}/portrait HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 5000\r\n"
        raw.sendall(f"{head}Authorization: Bearer {client.opened['key']}\r\n\r\n".encode() + bytes(100))
        wait_until(lambda: list(folder.iterdir()))
    wait_until(lambda: not list(folder.iterdir()))


# --- driving frames -------------------------------------------------------------------------------------------


def frame(number: int, data: bytes, capture_us: int = 0) -> bytes:
    return pack_driving(DrivingHeader(number, capture_us or number), data)


GOOD = jpeg(np.full((64, 64, 3), 90, np.uint8))
MESSAGES: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "bad_request"),
    "header alone": (frame(5, b""), "bad_request"),
    "garbage": (bytes(range(256)), "bad_request"),
    "another version": (frame(5, GOOD)[:2] + b"\x02" + frame(5, GOOD)[3:], "bad_request"),
    "a finished frame": (frame(5, GOOD)[:3] + b"\x02" + frame(5, GOOD)[4:], "bad_request"),
    "the same number": (frame(1, GOOD), "bad_request"),
    "no jpeg": (frame(5, b"no jpeg at all"), "unusable_input"),
    "a png": (frame(5, png(np.zeros((64, 64, 3), np.uint8))), "unusable_input"),
    "too many bytes": (frame(5, GOOD + bytes(50_000)), "too_large"),
    "too many pixels": (frame(5, flat_jpeg(1000, 300)), "too_large"),
    "no json": ("hello", "bad_request"),
    "no object": ("[1, 2]", "bad_request"),
    "an unknown type": ('{"type": "sudo"}', "bad_request"),
    "an ack of nothing": ('{"type": "ack"}', "bad_request"),
    "an ack of words": ('{"type": "ack", "index": "x"}', "bad_request"),
    "an ack of no number": ('{"type": "ack", "index": NaN}', "bad_request"),
    "a ping without end": ('{"type": "ping", "at_ms": 1e400}', "bad_request"),
    "brackets": ("[" * 4000, "bad_request"),
    "a long text": (json.dumps({"type": "ping", "more": "x" * 5000}), "too_large"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_that_are_refused_and_the_socket_goes_on(driven, name):
    message, kind = MESSAGES[name]
    socket = driven.connect()
    socket.connection.send(frame(1, GOOD))
    socket.connection.send(message)
    exchange(socket, 7.0)
    refused = errors_of(socket)
    assert len(refused) == 1
    check_error(refused[0], kind)
    socket.connection.send(frame(9, GOOD))
    socket.receive_until(lambda: socket.frames)
    socket.close()


def test_a_message_that_is_larger_than_any_frame_closes_the_socket(client):
    socket = client.connect()
    socket.connection.send(bytes(LIMITS.frame_bytes + 5000))
    assert closing_code(socket) == 1009
    assert client.request("GET").status_code == 200


def test_a_client_that_keeps_sending_bad_messages_is_disconnected(client):
    socket = client.connect()
    for _ in range(30):
        try:
            socket.connection.send("hello")
        except ConnectionClosed:
            break
    assert closing_code(socket) == 4400
    assert len(errors_of(socket)) <= 20
    assert client.request("GET").status_code == 200


DAMAGED = {
    "garbage inside": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "cut off": lambda data: data[: len(data) // 2],
    "no end": lambda data: data[:-2],
    "one pixel": lambda data: flat_jpeg(1, 1),
    "one line": lambda data: flat_jpeg(2000, 1),
    "one column": lambda data: flat_jpeg(1, 2000),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_driving_frames_are_bridged(driven, images, name):
    """Among good ones, and as the very first."""
    socket, camera = driven.connect(), itertools.cycle(turned(images[2], 7))
    patience = Patience(lambda: len(socket.frames))
    for number in itertools.count(1):
        data = jpeg(next(camera))
        socket.connection.send(frame(number, DAMAGED[name](data) if number % 3 == 1 else data, 30_000 * number))
        socket.drain(time.monotonic() + 0.01)
        if len([header for header, _ in socket.frames if header.sequence]) >= 4:
            break
        patience.check()
    assert number > 3
    assert driven.request("GET").status_code == 200
    for refused in errors_of(socket):
        check_error(refused, "unusable_input")
    socket.close()


# --- keys, origins, hosts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic secret", "Bearer s\xe9"])
def test_without_the_token_no_session(server, client, token):
    headers = {"Authorization": token.encode("latin-1")}
    expect_error(server.http.post("/api/sessions", json={}, headers=headers), "wrong_token", 401)


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("GET", "", {}),
        ("PATCH", "", {"json": {"playing": False}}),
        ("DELETE", "", {}),
        ("GET", "/controls", {}),
        ("PATCH", "/controls", {"json": {"mirror": True}}),
        ("POST", "/neutral", {}),
        *(("PUT", path, {"content": b"x"}) for path in ("/portrait", "/clip", "/template")),
        ("GET", "/template", {}),
    ],
)
def test_every_address_of_a_session_takes_its_own_key_alone(client, bystander, method, path, named):
    for key in ("wrong", "secret", client.opened["view_key"], bystander[0].opened["key"]):
        expect_error(client.request(method, path, key=key, **named), "wrong_token", 401)
    assert client.request("GET").json()["playing"] is True


@pytest.mark.parametrize(("which", "role"), [("wrong", "driver"), ("wrong", "viewer"), ("view", "driver")])
def test_sockets_take_the_right_key_alone(client, which, role):
    key = "wrong" if which == "wrong" else client.opened["view_key"]
    socket = client.connect(key, f"?role={role}")
    assert closing_code(socket) == 4400
    check_error(errors_of(socket)[0], "wrong_token")


def test_pages_of_other_origins_are_refused(server, client):
    evil = {"Origin": "https://evil.example"}
    expect_error(client.request("GET", headers=evil), "wrong_origin", 403)
    expect_error(server.http.get("/", headers=evil), "wrong_origin", 403)
    socket = client.connect(additional_headers=evil)
    assert closing_code(socket) == 4400
    check_error(errors_of(socket)[0], "wrong_origin")


def test_on_this_machine_other_names_are_refused(engine):
    """A page whose name was made to point here."""
    with running(lambda: engine, server=generous()) as local:
        evil = {"Host": "evil.example"}
        for path in ("/", "/api/status", "/static/index.html"):
            expect_error(local.http.get(path, headers=evil), "wrong_origin", 403)
        expect_error(local.http.post("/api/sessions", json={}, headers=evil), "wrong_origin", 403)
        assert local.http.get("/api/status").status_code == 200


# --- addresses and bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *(f"/api/gallery/{name}" for name in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "portrait.png")),
        *(f"/api/sessions/{name}" for name in ("..%2f..%2fetc", "nobody")),
        *(f"/static/{name}" for name in ("..%2f..%2fapp.py", "%2e%2e/app.py")),
        "/api/nothing",
    ],
)
def test_names_lead_nowhere_else(server, client, path):
    expect_error(server.http.get(path), "not_found", 404)


def test_the_gallery_of_a_session_has_its_own_names_alone(client):
    expect_error(client.request("PUT", "/portrait?gallery=../driving"), "not_found", 404)
    expect_error(client.request("PUT", "/portrait?gallery=performance"), "unusable_input", 422)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", b'{"playing": "yes"}'),
        ("PATCH", "", b'{"plying": true}'),
        ("PATCH", "", b'{"driver": "me"}'),
        ("PATCH", "", b"no json"),
        ("PATCH", "", b"[]"),
        ("PATCH", "", b"\xff\xfe"),
        *(("PATCH", "/controls", body) for body in (b"no json", b"\xff\xfe", b"[" * 4000)),
        ("PATCH", "/controls", b'{"expression": 1' + b"0" * 400 + b"}"),
        ("PATCH", "/controls", b'{"expression": NaN}'),
        ("PUT", "/clip?loop=perhaps", b"x"),
    ],
)
def test_bodies_that_are_not_understood(client, method, path, body):
    before = client.request("GET").json()
    headers = {"Content-Type": "application/json"}
    expect_error(client.request(method, path, content=body, headers=headers), "bad_request", 400)
    assert client.request("GET").json() == before


@pytest.mark.parametrize(
    "body",
    [
        *({"seed": seed} for seed in (-1, "0", 2**63)),
        *({"view_key": key} for key in ("short", "/" * 30)),
        {"ticket": "x" * 100},
        {"sed": 1},
    ],
)
def test_sessions_that_cannot_be_opened_so(server, client, body):
    expect_error(server.http.post("/api/sessions", json=body), "bad_request", 400)


def test_a_wrong_method_is_refused(server, client):
    check_error(server.http.put("/api/status").json(), "bad_request")


@pytest.mark.parametrize("query", ["?role=boss", "?frames=perhaps"])
def test_a_socket_with_an_unknown_query_is_refused(client, query):
    socket = client.connect(query=query)
    socket.receive_until(lambda: errors_of(socket))
    assert query[1:].partition("=")[0] in check_error(errors_of(socket)[0], "bad_request")


def test_an_unknown_address_is_no_socket(client):
    with pytest.raises(InvalidStatus), connect(client.server.address.replace("http", "ws") + "/api/nothing"):
        pass


def test_too_many_requests_are_refused(engine):
    with running(lambda: engine, server=generous(request_burst=5, requests_per_s=0.001)) as busy:
        answers = [busy.http.get("/api/status") for _ in range(8)]
        assert [answer.status_code for answer in answers[:4]] == [200] * 4
        expect_error(answers[-1], "rate_limited", 429)
        assert answers[-1].json()["error"]["retry_after_s"] > 0
        assert busy.http.get("/").status_code != 429  # the page itself is not counted
