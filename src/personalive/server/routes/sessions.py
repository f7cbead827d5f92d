"""Status and sessions over HTTP, and their sockets (docs/protocol.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, WebSocket
from pydantic import BaseModel, ConfigDict, Field

from personalive import __version__
from personalive.errors import InputError
from personalive.live.controls import control_ranges
from personalive.live.errors import RefusedError
from personalive.live.session import Driver
from personalive.server.auth import offered_key
from personalive.server.dependencies import OwnSession, RequestAuth, Sessions, the_desk, the_doors
from personalive.server.uploads import json_object
from personalive.server.websocket import refuse, serve_socket

_LIMITS = ("portrait_bytes", "portrait_pixels", "clip_bytes", "template_bytes", "frame_bytes", "frame_pixels")

routes = APIRouter(prefix="/api")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class OpenBody(_Body):
    """What a session begins with."""

    seed: int = Field(0, ge=0, lt=2**63)
    ticket: str | None = Field(None, max_length=64)
    view_key: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{24,64}$")


class ChangeBody(_Body):
    """Pause, go on, or let another driver begin."""

    playing: bool | None = None
    driver: Driver | None = None
    loop: bool | None = None


class Opened(BaseModel):
    """A new session."""

    id: str
    key: str
    view_key: str
    image_size_px: int
    idle_s: float


@routes.get("/status")
def status(desk: Sessions) -> dict[str, Any]:
    """What runs here, how fast, how full."""
    worker, engine = desk.worker, desk.worker.engine
    step, rate = worker.step_s, worker.frames_per_s
    model = {
        "model": engine and Path(engine.name).name,  # where weights lie is nobody's business
        "device": engine and str(engine.device),
        "dtype": engine and str(engine.backend.precision).removeprefix("torch."),
        "backend": engine and engine.backend.name,
        "image_size_px": engine and engine.image_size,
        "chunk_frames": engine and engine.chunk_frames,
        "warmup_frames": engine and engine.warmup_frames,
    }
    return {
        "version": __version__,
        "state": worker.state,
        "message": worker.message,
        "progress": None if worker.progress is None else round(worker.progress, 3),
        **model,
        "drawn_heads_only": worker.center_fallback,
        "step_ms": None if step is None else round(1e3 * step, 1),
        "frames_per_s": None if rate is None else round(rate, 2),
        "sessions": {"open": len(desk), "limit": worker.session_limit, "waiting": desk.waiting},
        "limits": {name: getattr(desk.server, name) for name in _LIMITS},
        "controls": control_ranges(),
        "webrtc": True,
        "ice_servers": [url for url in desk.server.ice_servers if "@" not in url],  # passwords stay here
    }


@routes.post("/sessions", status_code=201)
async def open_session(request: Request, desk: Sessions, doors: RequestAuth, body: OpenBody) -> Opened:
    """A new session, or a place in line."""
    doors.check_token(request)
    session = desk.open(body.ticket, seed=body.seed, view_key=body.view_key)
    engine = desk.worker.engine
    return Opened(
        id=session.id,
        key=session.key,
        view_key=session.view_key,
        image_size_px=engine.image_size if engine else 0,
        idle_s=desk.live.idle_s,
    )


@routes.get("/sessions/{ident}")
async def session_state(session: OwnSession) -> dict[str, Any]:
    """How it stands."""
    return session.state()


@routes.patch("/sessions/{ident}")
async def change_session(session: OwnSession, body: ChangeBody) -> dict[str, Any]:
    """Pause, go on, or let another driver begin."""
    if body.loop is not None and session.player is not None:
        session.player.loop = body.loop
    if body.driver is not None:
        await session.set_driver(body.driver)
    if body.playing is not None:
        session.set_playing(body.playing)
    return session.state()


@routes.delete("/sessions/{ident}", status_code=204)
async def close_session(desk: Sessions, session: OwnSession) -> None:
    """End it; all that was uploaded is gone."""
    desk.close(session, "ended by its owner")


@routes.get("/sessions/{ident}/controls")
async def controls(session: OwnSession) -> dict[str, Any]:
    """All controls."""
    return session.state()["controls"]


@routes.patch("/sessions/{ident}/controls")
async def change_controls(request: Request, session: OwnSession) -> dict[str, Any]:
    """Change some of them."""
    values = await json_object(request)
    try:
        await session.set_controls(values)
    except InputError as error:
        raise RefusedError("bad_request", str(error)) from None
    return session.state()["controls"]


@routes.post("/sessions/{ident}/neutral", status_code=204)
async def recalibrate(session: OwnSession) -> None:
    """The driver's next frame becomes neutral."""
    session.recalibrate()


@routes.websocket("/sessions/{ident}/socket")
async def socket(
    websocket: WebSocket,
    ident: str,
    role: Annotated[Literal["driver", "viewer"], Query()] = "driver",
    frames: bool = True,
) -> None:
    """Driving frames in, finished frames and messages out."""
    desk, doors = the_desk(websocket), the_doors(websocket)
    try:
        doors.check_origin(websocket)
        doors.check_rate(websocket)
        session = desk.find(ident)
        doors.check_key(websocket, session, *([session.view_key] if role == "viewer" else []))
    except RefusedError as error:
        await refuse(websocket, error)
        return
    await serve_socket(websocket, session, role, frames=frames, live=desk.live, server=desk.server)


@routes.websocket("/view/socket")
async def view(websocket: WebSocket) -> None:
    """Finished frames of whichever session has this view key now."""
    desk, doors = the_desk(websocket), the_doors(websocket)
    try:
        doors.check_origin(websocket)
        doors.check_rate(websocket)
        session = desk.find_view(offered_key(websocket))
    except RefusedError as error:
        await refuse(websocket, error)
        return
    await serve_socket(websocket, session, "viewer", frames=True, live=desk.live, server=desk.server)
