"""HTTP status of each kind of refusal (docs/protocol.md)."""

from __future__ import annotations

from personalive.live.errors import ErrorKind

STATUS: dict[ErrorKind, int] = {
    "bad_request": 400,
    "wrong_token": 401,
    "wrong_origin": 403,
    "not_found": 404,
    "too_large": 413,
    "unusable_input": 422,
    "rate_limited": 429,
    "internal": 500,
    "server_full": 503,
    "not_ready": 503,
}
