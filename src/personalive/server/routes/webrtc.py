"""WebRTC over plain HTTP: WHIP takes driving video in (RFC 9725), WHEP gives the result out (draft-ietf-wish-whep).

An offer is answered at once with all of the server's addresses; a client may still trickle in its own. There are no
ICE restarts, so no entity tags either: a client that has lost its way sends a new offer.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect, HTTPConnection

from personalive.live.errors import RefusedError
from personalive.live.session import Session
from personalive.server.dependencies import OwnSession, Sessions, the_desk, the_doors
from personalive.server.webrtc.connections import Connection, Connections
from personalive.server.webrtc.sdp import read_offer, read_trickle

_SDP, _FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"


def the_peers(connection: HTTPConnection) -> Connections:
    """Of the app that serves the request."""
    return connection.app.state.peers


def viewed_session(connection: HTTPConnection, ident: str) -> Session:
    """The session of the address, for the holder of its key or its view key.

    Raises:
        RefusedError: no such session, or another key.
    """
    session = the_desk(connection).find(ident)
    the_doors(connection).check_key(connection, session, session.view_key)
    return session


ThePeers = Annotated[Connections, Depends(the_peers)]
ViewedSession = Annotated[Session, Depends(viewed_session)]


def _takes(media_type: str) -> dict[str, Any]:
    """For the API's description."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"type": "string"}}}}}


routes = APIRouter(prefix="/api/sessions/{ident}", tags=["WebRTC"])


@routes.post("/whip", status_code=201, response_class=Response, openapi_extra=_takes(_SDP))
async def publish(request: Request, desk: Sessions, session: OwnSession, peers: ThePeers) -> Response:
    """Drive by WebRTC: the offer's video is the camera from now on; its sound goes to viewers by WHEP."""
    offer = read_offer(await _body(request, _SDP, desk), "sends")
    return _created(request, desk, *await peers.take_in(session, offer))


@routes.post("/whep", status_code=201, response_class=Response, openapi_extra=_takes(_SDP))
async def view(request: Request, desk: Sessions, session: ViewedSession, peers: ThePeers) -> Response:
    """See the result by WebRTC."""
    offer = read_offer(await _body(request, _SDP, desk), "receives")
    return _created(request, desk, *await peers.send_out(session, offer))


@routes.delete("/whip/{peer}", status_code=204)
async def unpublish(session: OwnSession, peers: ThePeers, peer: str) -> None:
    """Drive no more."""
    await peers.find(session, "whip", peer).close()


@routes.delete("/whep/{peer}", status_code=204)
async def leave(session: ViewedSession, peers: ThePeers, peer: str) -> None:
    """See no more."""
    await peers.find(session, "whep", peer).close()


@routes.patch("/whip/{peer}", status_code=204, openapi_extra=_takes(_FRAGMENT))
async def trickle_in(request: Request, desk: Sessions, session: OwnSession, peers: ThePeers, peer: str) -> None:
    """More of the driver's addresses."""
    await _trickle(request, desk, peers, peers.find(session, "whip", peer))


@routes.patch("/whep/{peer}", status_code=204, openapi_extra=_takes(_FRAGMENT))
async def trickle_out(request: Request, desk: Sessions, session: ViewedSession, peers: ThePeers, peer: str) -> None:
    """More of the viewer's addresses."""
    await _trickle(request, desk, peers, peers.find(session, "whep", peer))


@routes.options("/whip", status_code=204, include_in_schema=False)
@routes.options("/whep", status_code=204, include_in_schema=False)
async def what_is_taken(response: Response) -> None:
    """RFC 9725 section 4.2."""
    response.headers.update({"Accept-Post": _SDP, "Allow": "OPTIONS, POST"})


@routes.options("/whip/{peer}", status_code=204, include_in_schema=False)
@routes.options("/whep/{peer}", status_code=204, include_in_schema=False)
async def what_a_connection_takes(response: Response) -> None:
    """RFC 9725 section 4.2."""
    response.headers.update({"Accept-Patch": _FRAGMENT, "Accept-Post": _SDP, "Allow": "DELETE, OPTIONS, PATCH"})


def _created(request: Request, desk: Sessions, peer: Connection, answer: str) -> Response:
    headers = {"Location": f"{request.url.path}/{peer.id}", "Accept-Patch": _FRAGMENT}
    links = [f'<{url}>; rel="ice-server"' for url in desk.server.ice_servers if url.startswith("stun:")]
    if links:  # those with a password stay ours: it is enough if one side is relayed
        headers["Link"] = ", ".join(links)
    return Response(answer, 201, headers, media_type=_SDP)


async def _trickle(request: Request, desk: Sessions, peers: Connections, peer: Connection) -> None:
    found = read_trickle(await _body(request, _FRAGMENT, desk), peer.offer.mids)
    await peers.trickle(peer, found)


async def _body(request: Request, media_type: str, desk: Sessions) -> str:
    """The request's text.

    Raises:
        RefusedError: of another type, too large, cut off, too slow, or no text.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
        raise RefusedError("bad_request", f"send it with Content-Type: {media_type}")
    limit, data = desk.server.sdp_bytes, bytearray()
    try:
        async with asyncio.timeout(desk.server.negotiate_s):
            async for part in request.stream():
                data += part
                if len(data) > limit:
                    raise RefusedError("too_large", f"the body may have {limit} bytes")
        return data.decode()
    except (ClientDisconnect, TimeoutError):
        raise RefusedError("bad_request", "the body was cut off before its end: send it again") from None
    except UnicodeDecodeError:
        raise RefusedError("bad_request", "the body is not text (UTF-8)") from None
