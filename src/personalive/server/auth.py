"""Who gets in: tokens, keys, origins, rates. Every check raises ``RefusedError``."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.server.config import ServerConfig

PROTOCOL, _KEY_PREFIX = "personalive.v1", "key."
_CLIENTS = 4096  # remembered at once for the rate
_MAX_DIGITS = 12  # of a stated length
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


class Owned(Protocol):
    """What has a key of its own."""

    key: str


class Auth:
    """The server's token, the origins it serves, and how often each client may knock."""

    def __init__(
        self,
        token: str | None,
        origins: Iterable[str] = (),
        *,
        config: ServerConfig | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """
        Args:
            token: None where anyone who reaches the server may use it (localhost).
            origins: pages besides the server's own that may use it, as ``https://host:port``.
        """
        self.token, self._origins = token, {origin.rstrip("/") for origin in origins}
        self._config, self._clock = config or ServerConfig(), clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and as of when

    def check_origin(self, connection: HTTPConnection) -> None:
        """A browser's page must be the server's own, and its host one that we serve (against DNS rebinding)."""
        host = connection.headers.get("host", "")
        if self.token is None and _host_name(host) not in LOCAL_NAMES:
            raise RefusedError("wrong_origin", f"this server is for this machine only, not for {host or 'no host'}")
        origin = connection.headers.get("origin")
        if origin is None or origin.partition("://")[2] == host or origin.rstrip("/") in self._origins:
            return
        raise RefusedError(
            "wrong_origin", f"pages of {origin} may not use this server: start it with --origin {origin}"
        )

    def check_rate(self, connection: HTTPConnection) -> None:
        """A bucket per client: a burst, then so many a second."""
        client, now = connection.client.host if connection.client else "", self._clock()
        left, since = self._clients.pop(client, (float(self._config.request_burst), now))
        left = min(left + (now - since) * self._config.requests_per_s, self._config.request_burst)
        self._clients[client] = (max(left - 1, 0.0), now)
        while len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)
        if left < 1:
            wait_s = (1 - left) / self._config.requests_per_s
            raise RefusedError("rate_limited", "too many requests: wait a moment", retry_after_s=round(wait_s, 2))

    def check_body(self, connection: HTTPConnection) -> None:
        """Frameworks read a JSON body whole before anyone is asked who sends it: it must say that it is short.

        Uploads and offers are read by our own routes, piece by piece.
        """
        path, headers = connection.url.path, connection.headers
        if connection.scope.get("method") not in ("POST", "PATCH") or "/whip" in path or "/whep" in path:
            return
        stated = headers.get("content-length", "" if "transfer-encoding" in headers else "0")
        if not stated.isdecimal():
            raise RefusedError("bad_request", "the body's length is not stated: send Content-Length")
        if len(stated) > _MAX_DIGITS or int(stated) > self._config.message_bytes:
            raise RefusedError("too_large", f"the body may have {self._config.message_bytes} bytes")

    def check_token(self, connection: HTTPConnection) -> None:
        """The server's token, where there is one."""
        if self.token is not None and not same(_bearer(connection), self.token):
            raise RefusedError("wrong_token", "the server's token is missing or wrong: use the link that it printed")

    @staticmethod
    def check_key(connection: HTTPConnection, owned: Owned, *also: str) -> None:
        """The key of a session or job, or one of the others that will do."""
        given = _bearer(connection) or offered_key(connection)
        if not any(same(given, key) for key in (owned.key, *also)):
            raise RefusedError("wrong_token", "the key is missing or wrong")


def same(given: str, wanted: str) -> bool:
    """Compared in a time that tells nothing of where they differ."""
    return secrets.compare_digest(given.encode(), wanted.encode())


def _bearer(connection: HTTPConnection) -> str:
    kind, _, value = connection.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""


def offered_key(connection: HTTPConnection) -> str:
    """The key among a WebSocket's subprotocols; empty where there is none."""
    offered = connection.headers.get("sec-websocket-protocol", "").split(",")
    keys = [name.strip().removeprefix(_KEY_PREFIX) for name in offered if name.strip().startswith(_KEY_PREFIX)]
    return keys[0] if keys else ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that do not close
        return ""
