"""Proxy of the ingress: a request, or a WebSocket that stays open while its session moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
from fastapi import Request, WebSocket
from fastapi.responses import Response, StreamingResponse
from starlette.websockets import WebSocketDisconnect
from yarl import URL

from personalive.cluster.config import ServeClusterConfig
from personalive.cluster.table import Placed, Replica
from personalive.live.errors import RefusedError
from personalive.server.auth import PROTOCOL, subprotocol_key

# Of one connection, not of the message; lengths and types go on.
_HOP = {"host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_OURS = {"origin", "authorization"}  # checked here
_BROKEN = (aiohttp.ClientError, OSError)
_RETRY_S = 0.2
_LOST_CODES = (None, 1001, 1006, 1011, 1012)  # of a connection that ended with its replica


async def forward(http: aiohttp.ClientSession, request: Request, replica: Replica, **options: Any) -> Response:
    """Answer a request as a replica does, piece by piece; for the options see ``send``."""
    answer = await send(http, request, replica, **options)
    return StreamingResponse(_content(answer), answer.status, _kept(answer))


async def fetch(http: aiohttp.ClientSession, request: Request, replica: Replica, **options: Any) -> Response:
    """Answer a request as a replica does, once the answer is here as a whole; for the options see ``send``."""
    answer = await send(http, request, replica, **options)
    return Response(await answer.read(), answer.status, _kept(answer))


async def send(
    http: aiohttp.ClientSession,
    request: Request,
    replica: Replica,
    *,
    body: bytes | None = None,
    authorization: Mapping[str, str] | None = None,
) -> aiohttp.ClientResponse:
    """Send a request on to a replica.

    Args:
        body: in place of the request's, which is passed on as it comes.
        authorization: header in place of the request's.

    Raises:
        RefusedError: the replica cannot be reached.
    """
    headers = {name: value for name, value in request.headers.items() if name not in _HOP | _OURS}
    given = request.headers.get("authorization")
    headers |= authorization if authorization is not None else {"Authorization": given} if given else {}
    data: Any = body
    if body is not None:
        headers["content-length"] = str(len(body))
    elif "content-length" in headers or "transfer-encoding" in request.headers:
        data = request.stream()
    url = replica.url + request.url.path + (f"?{request.url.query}" if request.url.query else "")
    try:
        return await http.request(
            request.method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False
        )
    except _BROKEN:
        raise RefusedError("not_ready", "the device of this request was lost: try again", retry_after_s=1.0) from None


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}


async def _content(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for part in answer.content.iter_any():
            yield part
    finally:
        answer.release()


class SocketRelay:
    """WebSocket of a client, passed on to its session's replica of the moment."""

    def __init__(self, http: aiohttp.ClientSession, socket: WebSocket, placed: Placed, config: ServeClusterConfig):
        self._http, self._socket, self._placed, self._config = http, socket, placed, config
        self._upstream: aiohttp.ClientWebSocketResponse | None = None

    async def run(self) -> None:
        """Relay until either side ends it; a session that moves is told so by a message, and goes on."""
        offered = PROTOCOL in self._socket.scope.get("subprotocols", [])
        await self._socket.accept(subprotocol=PROTOCOL if offered else None)
        receiving = asyncio.create_task(self._receive())
        relaying = asyncio.create_task(self._relay())
        try:
            await asyncio.wait((receiving, relaying), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (receiving, relaying):
                task.cancel()
            for result in await asyncio.gather(receiving, relaying, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | RuntimeError):
                    raise result

    async def _receive(self) -> None:
        """Pass on what the client sends; while there is no replica, it is dropped."""
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            if (upstream := self._upstream) is None or upstream.closed:
                continue
            with suppress(*_BROKEN):
                if (data := message.get("bytes")) is not None:
                    await upstream.send_bytes(data)
                elif (text := message.get("text")) is not None:
                    await upstream.send_str(text)

    async def _relay(self) -> None:
        """Pass on what the replica sends; close with its code, or go on at the session's next replica."""
        socket, placed, home = self._socket, self._placed, None
        url = socket.url.path + (f"?{socket.url.query}" if socket.url.query else "")
        protocols = (PROTOCOL, f"key.{subprotocol_key(socket)}")
        while True:
            try:
                before, home = home, await placed.wait_for_home()
            except RefusedError:
                await socket.send_json({"type": "ended", "reason": placed.reason or "its device was lost"})
                await socket.close(4410)
                return
            if before not in (None, home):
                await socket.send_json({"type": "moved", "reason": placed.reason})
            try:
                async with self._http.ws_connect(
                    home.url + url, protocols=protocols, max_msg_size=0, heartbeat=self._config.heartbeat_s
                ) as self._upstream:
                    code = await self._pump(self._upstream, home)
            except _BROKEN:
                code = None
            finally:
                self._upstream = None
            if placed.home is home and code not in _LOST_CODES:
                await socket.close(code)
                return
            if placed.home is home:
                await asyncio.sleep(_RETRY_S)  # that it is lost will show

    async def _pump(self, upstream: aiohttp.ClientWebSocketResponse, home: Replica) -> int | None:
        """Pass on messages until the replica closes or the session moves; return the code of the close."""
        placed = self._placed
        moved = asyncio.create_task(_until_moved(placed, home, upstream))
        try:
            async for message in upstream:
                if message.type is aiohttp.WSMsgType.BINARY:
                    await self._socket.send_bytes(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    await self._socket.send_text(message.data)
        finally:
            moved.cancel()
        return upstream.close_code


async def _until_moved(placed: Placed, home: Replica, upstream: aiohttp.ClientWebSocketResponse) -> None:
    """Close a connection to a replica that is no longer the session's."""
    while placed.home is home:
        await placed.changed.wait()
    await upstream.close()
