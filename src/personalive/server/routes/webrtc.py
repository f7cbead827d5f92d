"""Routes of WebRTC over plain HTTP: WHIP for driving video (RFC 9725), WHEP for the result (draft-ietf-wish-whep).

An offer is answered at once with all of the server's addresses; a client may still trickle in its own. There are no
ICE restarts, so no entity tags either: a client that has lost its connection sends a new offer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from personalive.live.errors import RefusedError
from personalive.server.config import ServerConfig
from personalive.server.dependencies import AppConnections, AppSessions, OwnSession, ViewedSession
from personalive.server.uploads import text_body
from personalive.server.webrtc.connections import Connection
from personalive.server.webrtc.sdp import read_offer, read_trickle

_SDP, _FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
_ANSWERED: dict[int | str, dict[str, Any]] = {201: {"content": {_SDP: {"schema": {"type": "string"}}}}}

router = APIRouter(prefix="/api/sessions/{ident}", tags=["WebRTC"])


@router.post("/whip", status_code=201, response_class=Response, responses=_ANSWERED, openapi_extra=text_body(_SDP))
async def publish(
    request: Request, sessions: AppSessions, session: OwnSession, connections: AppConnections
) -> Response:
    """Drive by WebRTC: the offer's video is the camera from now on; its audio goes to viewers by WHEP."""
    offer = read_offer(await _read(request, _SDP, sessions.server), "sends")
    return _created(request, sessions.server, *await connections.answer_whip(session, offer))


@router.post("/whep", status_code=201, response_class=Response, responses=_ANSWERED, openapi_extra=text_body(_SDP))
async def view(
    request: Request, sessions: AppSessions, session: ViewedSession, connections: AppConnections
) -> Response:
    """View the result by WebRTC."""
    offer = read_offer(await _read(request, _SDP, sessions.server), "receives")
    return _created(request, sessions.server, *await connections.answer_whep(session, offer))


@router.delete("/whip/{connection}", status_code=204)
async def unpublish(session: OwnSession, connections: AppConnections, connection: str) -> None:
    """End driving by WebRTC."""
    await connections.find(session, "whip", connection).close()


@router.delete("/whep/{connection}", status_code=204)
async def leave(session: ViewedSession, connections: AppConnections, connection: str) -> None:
    """End viewing by WebRTC."""
    await connections.find(session, "whep", connection).close()


@router.patch("/whip/{connection}", status_code=204, openapi_extra=text_body(_FRAGMENT))
async def trickle_whip(
    request: Request, sessions: AppSessions, session: OwnSession, connections: AppConnections, connection: str
) -> None:
    """Add ICE candidates of the driver."""
    found = connections.find(session, "whip", connection)
    fragment = await _read(request, _FRAGMENT, sessions.server)
    await connections.trickle(found, read_trickle(fragment, found.offer.mids))


@router.patch("/whep/{connection}", status_code=204, openapi_extra=text_body(_FRAGMENT))
async def trickle_whep(
    request: Request, sessions: AppSessions, session: ViewedSession, connections: AppConnections, connection: str
) -> None:
    """Add ICE candidates of the viewer."""
    found = connections.find(session, "whep", connection)
    fragment = await _read(request, _FRAGMENT, sessions.server)
    await connections.trickle(found, read_trickle(fragment, found.offer.mids))


@router.options("/whip", status_code=204, include_in_schema=False)
@router.options("/whep", status_code=204, include_in_schema=False)
async def endpoint_options(response: Response) -> None:
    """Name the accepted type and methods (RFC 9725 section 4.2)."""
    response.headers.update({"Accept-Post": _SDP, "Allow": "OPTIONS, POST"})


@router.options("/whip/{connection}", status_code=204, include_in_schema=False)
@router.options("/whep/{connection}", status_code=204, include_in_schema=False)
async def connection_options(response: Response) -> None:
    """Name the accepted types and methods (RFC 9725 section 4.2)."""
    response.headers.update({"Accept-Patch": _FRAGMENT, "Accept-Post": _SDP, "Allow": "DELETE, OPTIONS, PATCH"})


def _created(request: Request, config: ServerConfig, connection: Connection, answer: str) -> Response:
    headers = {"Location": f"{request.url.path}/{connection.id}", "Accept-Patch": _FRAGMENT}
    links = [f'<{url}>; rel="ice-server"' for url in config.ice_servers if url.startswith("stun:")]
    if links:  # not TURN servers, whose passwords stay here: it is enough if one side is relayed
        headers["Link"] = ", ".join(links)
    return Response(answer, 201, headers, media_type=_SDP)


async def _read(request: Request, media_type: str, config: ServerConfig) -> str:
    """Read the body as text.

    Raises:
        RefusedError: of another type, too large, cut off, too slow, or no text.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
        raise RefusedError("bad_request", f"send it with Content-Type: {media_type}")
    data = bytearray()
    try:
        async with asyncio.timeout(config.negotiate_s):
            async for part in request.stream():
                data += part
                if len(data) > config.sdp_bytes:
                    raise RefusedError("too_large", f"the body may have {config.sdp_bytes} bytes")
        return data.decode()
    except (ClientDisconnect, TimeoutError):
        raise RefusedError("bad_request", "the body was cut off before its end: send it again") from None
    except UnicodeDecodeError:
        raise RefusedError("bad_request", "the body is not text (UTF-8)") from None
