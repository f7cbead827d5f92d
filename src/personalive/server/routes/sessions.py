"""Routes of the status and of sessions, with their WebSockets (docs/protocol.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Depends, WebSocket

from personalive import __version__
from personalive.errors import InputError
from personalive.live.controls import control_ranges
from personalive.live.errors import RefusedError
from personalive.server.auth import subprotocol_key
from personalive.server.dependencies import (
    AppSessions,
    OwnSession,
    Role,
    SocketSession,
    check_socket,
    require_token,
)
from personalive.server.schemas import (
    ChangeSession,
    ControlChanges,
    ControlRange,
    Controls,
    Limits,
    OpenedSession,
    OpenSession,
    SessionCounts,
    SessionState,
    Status,
)
from personalive.server.websocket import serve_socket

router = APIRouter(prefix="/api", tags=["Sessions"])


@router.get("/status", response_model_exclude_unset=True)
async def status(sessions: AppSessions) -> Status:
    """Return the server's state, model, speed, load and limits."""
    worker, engine, config = sessions.worker, sessions.worker.engine, sessions.server
    step, rate = worker.step_s, worker.frames_per_s
    return Status(
        version=__version__,
        state=worker.state,
        message=worker.message,
        progress=None if worker.progress is None else round(worker.progress, 3),
        model=engine and Path(engine.name).name,  # not where the weights lie
        device=engine and str(engine.device),
        dtype=engine and engine.facts["dtype"],
        backend=engine and engine.facts["backend"],
        image_size_px=engine and engine.image_size,
        chunk_frames=engine and engine.chunk_frames,
        warmup_frames=engine and engine.warmup_frames,
        drawn_heads_only=worker.center_fallback,
        step_ms=None if step is None else round(1e3 * step, 1),
        frames_per_s=None if rate is None else round(rate, 2),
        sessions=SessionCounts(open=len(sessions), limit=worker.session_limit, waiting=sessions.waiting),
        limits=Limits(**{name: getattr(config, name) for name in Limits.model_fields}),
        controls={
            name: ControlRange(**found) for name, found in control_ranges(engine.max_steps if engine else 0).items()
        },
        webrtc=True,
        credentials=config.credentials,
        ice_servers=[url for url in config.ice_servers if "@" not in url],  # none with a password
    )


@router.post("/sessions", status_code=201, dependencies=[Depends(require_token)])
async def open_session(sessions: AppSessions, body: OpenSession) -> OpenedSession:
    """Open a session; a full server refuses with a ticket."""
    session = sessions.open(body.ticket, seed=body.seed, view_key=body.view_key)
    engine = sessions.worker.engine
    return OpenedSession(
        id=session.id,
        key=session.key,
        view_key=session.view_key,
        image_size_px=engine.image_size if engine else 0,
        idle_s=sessions.live.idle_s,
    )


@router.get("/sessions/{ident}")
async def session_state(session: OwnSession) -> SessionState:
    """Return the session's state."""
    return SessionState(**session.state())


@router.patch("/sessions/{ident}")
async def change_session(session: OwnSession, body: ChangeSession) -> SessionState:
    """Pause, resume, or change the driver."""
    if body.loop is not None and session.player is not None:
        session.player.loop = body.loop
    if body.driver is not None:
        await session.set_driver(body.driver)
    if body.playing is not None:
        session.set_playing(body.playing)
    return SessionState(**session.state())


@router.delete("/sessions/{ident}", status_code=204)
async def close_session(sessions: AppSessions, session: OwnSession) -> None:
    """End the session and remove its uploads."""
    sessions.close(session, "ended by its owner")


@router.get("/sessions/{ident}/controls")
async def controls(session: OwnSession) -> Controls:
    """Return all controls."""
    return Controls(**session.state()["controls"])


@router.patch("/sessions/{ident}/controls")
async def change_controls(
    session: OwnSession, changes: Annotated[ControlChanges, Body(default_factory=dict)]
) -> Controls:
    """Change some controls."""
    try:
        await session.set_controls(changes)
    except InputError as error:
        raise RefusedError("bad_request", str(error)) from None
    return Controls(**session.state()["controls"])


@router.post("/sessions/{ident}/neutral", status_code=204)
async def recalibrate(session: OwnSession) -> None:
    """Take the driver's next frame as neutral."""
    session.recalibrate()


@router.websocket("/sessions/{ident}/socket", dependencies=[Depends(check_socket)])
async def socket(
    websocket: WebSocket, sessions: AppSessions, session: SocketSession, role: Role = "driver", frames: bool = True
) -> None:
    """Receive driving frames, send finished frames and messages."""
    await serve_socket(websocket, session, role, frames=frames, live=sessions.live, server=sessions.server)


@router.websocket("/view/socket", dependencies=[Depends(check_socket)])
async def view(websocket: WebSocket, sessions: AppSessions) -> None:
    """Send finished frames of the session that has this view key now."""
    session = sessions.find_view(subprotocol_key(websocket))
    await serve_socket(websocket, session, "viewer", frames=True, live=sessions.live, server=sessions.server)
