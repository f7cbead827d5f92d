"""Access checks: tokens, keys, origins, hosts, rates, body lengths."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from personalive.live.errors import RefusedError
from personalive.server.auth import Auth, check_key
from personalive.server.config import ServerConfig
from personalive.server.dependencies import BEARER, given_key


def asking(client: str = "1.2.3.4", **headers: str) -> HTTPConnection:
    """A connection with such headers; underscores become hyphens."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": raw, "client": (client, 5)})


def key_of(**headers: str) -> str:
    """Token or key that a route would be given."""
    connection = asking(**headers)

    async def find() -> str:
        return await given_key(connection, await BEARER(connection))

    return asyncio.run(find())


def kind_of(check: Any, *args: Any, **named: Any) -> str | None:
    """Kind of the refusal; None where there is none."""
    try:
        check(*args, **named)
    except RefusedError as error:
        return error.kind
    return None


# --- token ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("Bearer secret", None),
        ("bearer secret", None),
        ("Bearer  secret ", None),
        ("Bearer Secret", "wrong_token"),
        ("Bearer secre", "wrong_token"),
        ("Bearer", "wrong_token"),
        ("Basic secret", "wrong_token"),
        ("secret", "wrong_token"),
        ("Bearer s\xe9cret", "wrong_token"),
        (None, "wrong_token"),
    ],
)
def test_the_token_opens_and_nothing_else_does(header, kind):
    headers = {} if header is None else {"authorization": header}
    assert kind_of(Auth("secret").check_token, key_of(**headers)) == kind


def test_without_a_token_everyone_on_the_machine_gets_in():
    assert kind_of(Auth(None).check_token, key_of()) is None


# --- keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "owner", "viewer"),
    [
        ({"authorization": "Bearer own"}, None, None),
        ({"authorization": "Bearer view"}, "wrong_token", None),
        ({"sec_websocket_protocol": "personalive.v1, key.own"}, None, None),
        ({"sec_websocket_protocol": "key.view,personalive.v1"}, "wrong_token", None),
        ({"sec_websocket_protocol": "personalive.v1, own"}, "wrong_token", "wrong_token"),
        ({"sec_websocket_protocol": "key."}, "wrong_token", "wrong_token"),
        ({"authorization": "Bearer ow"}, "wrong_token", "wrong_token"),
        ({}, "wrong_token", "wrong_token"),
    ],
)
def test_the_view_key_shows_and_changes_nothing(headers, owner, viewer):
    assert kind_of(check_key, key_of(**headers), "own") == owner
    assert kind_of(check_key, key_of(**headers), "own", "view") == viewer


# --- origins and hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin", "kind"),
    [
        ("localhost:7860", None, None),
        ("127.0.0.1:7860", "http://127.0.0.1:7860", None),
        ("[::1]:7860", "http://[::1]:7860", None),
        ("LOCALHOST:7860", None, None),
        ("localhost:7860", "http://localhost:9999", "wrong_origin"),  # another server's page on this machine
        ("localhost:7860", "https://evil.example", "wrong_origin"),
        ("localhost:7860", "null", "wrong_origin"),
        ("localhost:7860", "", "wrong_origin"),
        ("localhost:7860", "https://friend.example", None),
        ("localhost:7860", "https://friend.example.evil.example", "wrong_origin"),
        ("evil.example:7860", None, "wrong_origin"),  # a name that was made to point here
        ("evil.example:7860", "http://evil.example:7860", "wrong_origin"),
        ("localhost.evil.example", None, "wrong_origin"),
        ("127.0.0.1@evil.example", None, "wrong_origin"),
        ("", None, "wrong_origin"),
        ("[::1", None, "wrong_origin"),
    ],
)
def test_on_this_machine_only_its_own_pages_get_in(host, origin, kind):
    auth = Auth(None, ["https://friend.example/"])
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert kind_of(auth.check_origin, asking(**headers)) == kind


def test_with_a_token_any_host_serves_but_only_its_own_pages():
    auth = Auth("secret")
    assert kind_of(auth.check_origin, asking(host="studio.example")) is None
    assert kind_of(auth.check_origin, asking(host="studio.example", origin="https://studio.example")) is None
    assert kind_of(auth.check_origin, asking(host="studio.example", origin="https://evil.example")) == "wrong_origin"
    assert kind_of(auth.check_origin, asking(host="studio.example", origin="http://[")) == "wrong_origin"


# --- rates ----------------------------------------------------------------------------------------------------


def test_a_burst_and_then_so_many_a_second_each_client_for_itself():
    now = [0.0]
    auth = Auth(None, config=ServerConfig(request_burst=3, requests_per_s=2.0), clock=lambda: now[0])
    one, other = asking("10.0.0.1"), asking("10.0.0.2")
    assert [kind_of(auth.check_rate, one) for _ in range(5)] == [None] * 3 + ["rate_limited"] * 2
    assert kind_of(auth.check_rate, other) is None
    now[0] = 0.5
    assert [kind_of(auth.check_rate, one) for _ in range(2)] == [None, "rate_limited"]
    now[0] = 1000.0
    assert [kind_of(auth.check_rate, one) for _ in range(4)] == [None] * 3 + ["rate_limited"]


def test_who_knocks_too_often_is_told_how_long_to_wait():
    now = [0.0]
    auth = Auth(None, config=ServerConfig(request_burst=1, requests_per_s=4.0), clock=lambda: now[0])
    auth.check_rate(asking())
    with pytest.raises(RefusedError) as refusal:
        auth.check_rate(asking())
    now[0] = refusal.value.more["retry_after_s"]
    auth.check_rate(asking())


def test_only_so_many_clients_are_remembered():
    auth = Auth(None, clock=lambda: 0.0)
    for number in range(5000):
        auth.check_rate(asking(str(number)))
    assert len(auth._clients) <= 4096


# --- bodies ---------------------------------------------------------------------------------------------------


def sending(method: str, path: str, **headers: str) -> HTTPConnection:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw})


@pytest.mark.parametrize(
    ("method", "path", "headers", "kind"),
    [
        ("POST", "/api/sessions", {"content_length": "100"}, None),
        ("POST", "/api/sessions", {}, None),
        ("POST", "/api/sessions", {"content_length": "200000000"}, "too_large"),
        ("PATCH", "/api/sessions/x", {"content_length": "9" * 5000}, "too_large"),
        ("POST", "/api/jobs", {"transfer_encoding": "chunked"}, "bad_request"),
        ("POST", "/api/jobs", {"content_length": "-1"}, "bad_request"),
        ("PUT", "/api/sessions/x/clip", {"content_length": "200000000"}, None),  # counted as it comes
        ("POST", "/api/sessions/x/whip", {"transfer_encoding": "chunked"}, None),  # so too
    ],
)
def test_what_is_read_whole_must_be_short(method, path, headers, kind):
    assert kind_of(Auth(None).check_body, sending(method, path, **headers)) == kind
