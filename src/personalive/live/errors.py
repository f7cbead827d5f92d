"""Refused requests, by kinds that clients can tell apart (docs/protocol.md)."""

from __future__ import annotations

from typing import Any, Literal

from personalive.errors import PersonaLiveError

ErrorKind = Literal[
    "bad_request",
    "wrong_token",
    "wrong_origin",
    "not_found",
    "too_large",
    "unusable_input",
    "rate_limited",
    "internal",
    "server_full",
    "not_ready",
]


class RefusedError(PersonaLiveError):
    """Request that is not served. ``str`` is one line for a person, ``more`` further fields of the answer."""

    def __init__(self, kind: ErrorKind, message: str, **more: Any) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.more = more

    def body(self) -> dict[str, Any]:
        """``{"error": {...}}`` as clients get it."""
        return {"error": {"kind": self.kind, "message": str(self), **self.more}}

    def message(self) -> dict[str, Any]:
        """The same as a text message of a WebSocket."""
        return {"type": "error", **self.body()}
