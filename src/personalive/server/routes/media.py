"""Portraits and clips of a session: uploaded, or from the gallery (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from personalive.live.errors import RefusedError
from personalive.live.players import ClipPlayer, MotionPlayer
from personalive.live.session import Session
from personalive.offline.motion_file import motion_clip_from_bytes, motion_file_bytes
from personalive.server.dependencies import OwnSession, Sessions
from personalive.server.uploads import named, read_picture, receive

_DEMO = Path(str(resources.files("personalive"))) / "assets" / "demo"
GALLERY = {  # name: title, kind, file
    "portrait": ("A synthetic portrait", "portrait", _DEMO / "portrait.png"),
    "performance": ("A synthetic performance", "clip", _DEMO / "driving.mp4"),
}

routes = APIRouter(prefix="/api")


@routes.get("/gallery")
def gallery() -> list[dict[str, str]]:
    """Bundled portraits and clips."""
    return [{"name": name, "title": title, "kind": kind} for name, (title, kind, _) in GALLERY.items()]


@routes.get("/gallery/{name}")
def gallery_file(name: str) -> FileResponse:
    """One of them."""
    return FileResponse(_from_gallery(name)[1])


@routes.put("/sessions/{ident}/portrait")
async def put_portrait(
    request: Request, desk: Sessions, session: OwnSession, gallery: str | None = None
) -> dict[str, Any]:
    """The body, a picture, becomes the portrait; the next frames show it."""
    path = await _received(request, session, gallery, "portrait", desk.server.portrait_bytes)
    picture = await read_picture(path, desk.server)
    note = await session.run_on_worker(lambda stream: stream.set_portrait(picture, session.controls.seed))
    return {"note": note, "generation": session.state()["generation"]}


@routes.put("/sessions/{ident}/clip")
async def put_clip(
    request: Request, desk: Sessions, session: OwnSession, gallery: str | None = None, loop: bool = True
) -> dict[str, Any]:
    """The body, a video, drives from now on."""
    path = await _received(request, session, gallery, "clip", desk.server.clip_bytes)
    try:
        player = await named(path, "the clip", lambda: ClipPlayer(path, session, loop=loop))
    except RefusedError:
        path.unlink(missing_ok=True)
        raise
    await session.set_driver("clip", player)
    return {"duration_s": player.duration_s, "fps": player.fps}


@routes.put("/sessions/{ident}/template")
async def put_template(request: Request, desk: Sessions, session: OwnSession, loop: bool = True) -> dict[str, Any]:
    """The body, a motion file, drives from now on."""
    path = await receive(request, session.folder, desk.server.template_bytes, "template")
    try:
        data = await asyncio.to_thread(path.read_bytes)
    finally:
        path.unlink(missing_ok=True)
    template = await asyncio.to_thread(motion_clip_from_bytes, data, name="the template")
    player = MotionPlayer(await session.run_on_worker(lambda stream: stream.fit_motion(template)), session, loop=loop)
    await session.set_driver("template", player)
    return {"duration_s": player.duration_s, "fps": player.fps}


class RecordBody(BaseModel):
    """Begin or end."""

    recording: bool


@routes.post("/sessions/{ident}/template")
async def record_template(session: OwnSession, body: RecordBody) -> dict[str, Any]:
    """Begin to keep the motion, or end it."""
    await session.run_on_worker(lambda stream: stream.set_recording(body.recording))
    return session.state()


@routes.get("/sessions/{ident}/template")
async def take_template(session: OwnSession) -> Response:
    """The motion kept last, as a file for ``PUT`` and for `personalive animate`."""
    template = await session.run_on_worker(lambda stream: stream.recorded_motion())
    data = await asyncio.to_thread(motion_file_bytes, template)
    headers = {"Content-Disposition": 'attachment; filename="performance.safetensors"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


async def _received(request: Request, session: Session, name: str | None, kind: str, limit_bytes: int) -> Path:
    """The body, or a copy of something bundled, in the session's folder."""
    if name is None:
        return await receive(request, session.folder, limit_bytes, kind)
    found, source = _from_gallery(name)
    if found != kind:
        raise RefusedError("unusable_input", f"{name!r} is a {found}, not a {kind}")
    return shutil.copyfile(source, session.folder / f"{secrets.token_hex(8)}{source.suffix}")


def _from_gallery(name: str) -> tuple[str, Path]:
    """Kind and file of something bundled."""
    if name not in GALLERY:
        raise RefusedError("not_found", f"no {name[:40]!r} in the gallery: there are {', '.join(GALLERY)}")
    return GALLERY[name][1:]
