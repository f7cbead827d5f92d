"""HTTP answers of refused requests: the status of each kind, one body for all (docs/protocol.md)."""

from __future__ import annotations

from fastapi.responses import JSONResponse

from personalive.live.errors import ErrorKind, RefusedError

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


def error_response(error: RefusedError) -> JSONResponse:
    """Return the answer to a refused request, with ``Retry-After`` where waiting helps."""
    wait_s = error.more.get("retry_after_s")
    headers = {} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))}
    return JSONResponse(error.body(), STATUS[error.kind], headers=headers)
