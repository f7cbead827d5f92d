"""The server as uvicorn runs it, but for how it ends."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from fastapi import FastAPI

_LOOKS, _LOOK_S = 50, 0.02  # how often we look whether clients have heard why, and how long in between


class GracefulServer(uvicorn.Server):
    """Ends the sessions before their connections: uvicorn alone would hang up without a word."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the clients, then close what is still open."""
        desk = self._app.state.desk
        sessions = list(desk)
        desk.close_all("the server is shutting down")
        for _ in range(_LOOKS):
            if not any(session.connections for session in sessions):
                break
            await asyncio.sleep(_LOOK_S)
        await super().shutdown(sockets)
