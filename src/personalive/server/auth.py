"""Access checks: tokens, keys, hosts, origins, request rates and body lengths. Each raises ``RefusedError``."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.server.config import ServerConfig

PROTOCOL, _KEY_PREFIX = "personalive.v1", "key."
_MAX_CLIENTS = 4096  # whose rate is remembered
_MAX_DIGITS = 12  # of a stated length
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


class Auth:
    """Access rules of a server: its token, the origins that may use it, and each client's request rate."""

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
        self.token, self.origins = token, frozenset(origin.rstrip("/") for origin in origins)
        self._config, self._clock = config or ServerConfig(), clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and as of when

    def check_origin(self, connection: HTTPConnection) -> None:
        """Refuse pages of other origins, and hosts that a local server does not have (against DNS rebinding)."""
        # Ours, since TrustedHostMiddleware answers in plain text and closes WebSockets without a message, and
        # CORSMiddleware lets requests of foreign pages, and all WebSockets, through.
        host = connection.headers.get("host", "")
        if self.token is None and _host_name(host) not in LOCAL_NAMES:
            raise RefusedError("wrong_origin", f"this server is for this machine only, not for {host or 'no host'}")
        origin = connection.headers.get("origin")
        if origin is None or origin.partition("://")[2] == host or origin in self.origins:
            return
        raise RefusedError(
            "wrong_origin", f"pages of {origin} may not use this server: start it with --origin {origin}"
        )

    def check_rate(self, connection: HTTPConnection) -> None:
        """Take a token from the client's bucket: a burst, then a sustained rate."""
        client, now = connection.client.host if connection.client else "", self._clock()
        left, since = self._clients.pop(client, (float(self._config.request_burst), now))
        left = min(left + (now - since) * self._config.requests_per_s, self._config.request_burst)
        self._clients[client] = (max(left - 1, 0.0), now)
        while len(self._clients) > _MAX_CLIENTS:
            self._clients.popitem(last=False)
        if left < 1:
            wait_s = (1 - left) / self._config.requests_per_s
            raise RefusedError("rate_limited", "too many requests: wait a moment", retry_after_s=round(wait_s, 2))

    def check_body(self, connection: HTTPConnection) -> None:
        """Refuse long JSON bodies by their stated length: FastAPI reads them whole before it checks keys.

        Uploads and SDP offers are read by our own routes, piece by piece.
        """
        path, headers = connection.url.path, connection.headers
        if connection.scope.get("method") not in ("POST", "PATCH") or "/whip" in path or "/whep" in path:
            return
        stated = headers.get("content-length", "" if "transfer-encoding" in headers else "0")
        if not stated.isdecimal():
            raise RefusedError("bad_request", "the body's length is not stated: send Content-Length")
        if len(stated) > _MAX_DIGITS or int(stated) > self._config.message_bytes:
            raise RefusedError("too_large", f"the body may have {self._config.message_bytes} bytes")

    def check_token(self, given: str) -> None:
        """Refuse all but the server's token, where there is one."""
        if self.token is not None and not same(given, self.token):
            raise RefusedError("wrong_token", "the server's token is missing or wrong: use the link that it printed")


def check_key(given: str, *keys: str) -> None:
    """Refuse all but ``keys`` of a session or job."""
    if not any(same(given, key) for key in keys):
        raise RefusedError("wrong_token", "the key is missing or wrong")


def same(given: str, expected: str) -> bool:
    """Compare secrets in constant time."""
    return secrets.compare_digest(given.encode(), expected.encode())


def subprotocol_key(connection: HTTPConnection) -> str:
    """Return the key among a WebSocket's subprotocols; empty where there is none."""
    offered = connection.headers.get("sec-websocket-protocol", "").split(",")
    keys = [name.strip().removeprefix(_KEY_PREFIX) for name in offered if name.strip().startswith(_KEY_PREFIX)]
    return keys[0] if keys else ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that do not close
        return ""
