"""Why a request is refused: kinds that clients can tell apart, each with its HTTP status (docs/protocol.md)."""

from __future__ import annotations

from typing import Any

from personalive.errors import PersonaLiveError

STATUS = {
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


class RefusedError(PersonaLiveError):
    """A request that is not served. ``str`` is one line for a person; ``more`` goes into the answer beside it."""

    def __init__(self, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.kind, self.status, self.more = kind, STATUS[kind], more

    def body(self) -> dict[str, Any]:
        """``{"error": {...}}`` as clients get it."""
        return {"error": {"kind": self.kind, "message": str(self), **self.more}}

    def message(self) -> dict[str, Any]:
        """The same as a text message of a WebSocket."""
        return {"type": "error", **self.body()}
