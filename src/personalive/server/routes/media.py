"""Routes of portraits, clips and motion files of a session, and of the gallery (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from personalive.live.errors import RefusedError
from personalive.live.players import ClipPlayer, MotionPlayer
from personalive.media.credentials import MP4, NO_CREDENTIALS, PNG, WEBM
from personalive.media.isolated import sign_isolated
from personalive.media.still import load_still
from personalive.offline.motion_file import motion_clip_from_bytes, motion_file_bytes
from personalive.offline.provenance import origin_of
from personalive.server.dependencies import AppSessions, OwnSession, require_token
from personalive.server.schemas import ChangeRecording, DriverAnswer, GalleryItem, PortraitAnswer, SessionState
from personalive.server.uploads import binary_body, read_image, receive, run_named

_ASSETS = Path(str(resources.files("personalive"))) / "assets"
_DEMO, _PORTRAITS = _ASSETS / "demo", _ASSETS / "photo" / "portraits"
_SYNTHETIC = {  # for the model that knows synthetic heads only
    "portrait": (GalleryItem(name="portrait", title="A synthetic portrait", kind="portrait"), _DEMO / "portrait.png"),
    "performance": (
        GalleryItem(name="performance", title="A synthetic performance", kind="clip"),
        _DEMO / "driving.mp4",
    ),
}
_GENERATED = {  # people who do not exist, for all others
    f"portrait-{n}": (
        GalleryItem(name=f"portrait-{n}", title=f"Generated portrait {n}", kind="portrait"),
        _PORTRAITS / f"portrait-{n}.jpg",
    )
    for n in range(1, 5)
} | {
    "generated": (
        GalleryItem(name="generated", title="A generated performance", kind="clip"),
        _ASSETS / "photo" / "demo" / "driving.mp4",
    )
}
_GALLERY = _SYNTHETIC | _GENERATED
_MOTION_FILE = "application/octet-stream"
_CREDENTIALS = "application/c2pa"
_SIGNED = (PNG, MP4, WEBM)

router = APIRouter(prefix="/api")


@router.get("/gallery", tags=["Gallery"])
async def gallery(sessions: AppSessions) -> list[GalleryItem]:
    """List the bundled portraits and clips that suit the model."""
    suited = _SYNTHETIC if sessions.worker.center_fallback else _GENERATED
    return [item for item, _ in suited.values()]


@router.get("/gallery/{name}", tags=["Gallery"], response_class=FileResponse)
async def gallery_file(name: str) -> FileResponse:
    """Return one of them."""
    return FileResponse(_find_bundled(name))


class _LastResponse(FileResponse):
    """A file whose folder is removed after it was sent, as far as the client read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            shutil.rmtree(Path(self.path).parent, ignore_errors=True)


@router.put(
    "/credentials",
    tags=["Media"],
    dependencies=[Depends(require_token)],
    openapi_extra=binary_body(*_SIGNED),
    response_class=FileResponse,
    responses={200: {"content": {name: {} for name in (PNG, MP4, _CREDENTIALS)}}},
)
async def put_credentials(request: Request, sessions: AppSessions) -> FileResponse:
    """Return the body, a recording or snapshot, with content credentials; for WebM the credentials alone."""
    media_type, engine = request.headers.get("content-type", "").partition(";")[0], sessions.worker.engine
    if media_type not in _SIGNED:
        raise RefusedError("bad_request", f"Content-Type {media_type!r}: send {', '.join(_SIGNED)}")
    if not sessions.server.credentials:
        raise RefusedError("bad_request", f"this server gives {NO_CREDENTIALS}")
    if engine is None:
        raise RefusedError("not_ready", sessions.worker.message)
    folder = Path(tempfile.mkdtemp(dir=sessions.folder))
    try:
        async with sessions.signing:
            path = await receive(request, folder, sessions.server.recording_bytes, "recording")
            origin = await asyncio.to_thread(origin_of, engine)
            signed = await run_named(path, "the recording", lambda: sign_isolated(path, media_type, origin))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    media_type = media_type if signed == path else _CREDENTIALS
    return _LastResponse(signed, media_type=media_type)


@router.put("/sessions/{ident}/portrait", tags=["Media"], openapi_extra=binary_body("image/*"))
async def put_portrait(
    request: Request, sessions: AppSessions, session: OwnSession, gallery: str | None = None
) -> PortraitAnswer:
    """Set the portrait to the body, or to one of the gallery; the next frames show it."""
    if gallery is not None:
        image = await asyncio.to_thread(load_still, _find_bundled(gallery, "portrait"))
    else:
        path = await receive(request, session.folder, sessions.server.portrait_bytes, "portrait")
        image = await read_image(path, sessions.server)
    framed = await asyncio.to_thread(sessions.worker.frame_portrait, image)
    note = await session.run_on_worker(lambda stream: stream.set_portrait(image, session.controls, framed))
    return PortraitAnswer(note=note, generation=session.state()["generation"])


@router.put("/sessions/{ident}/clip", tags=["Media"], openapi_extra=binary_body("video/*"))
async def put_clip(
    request: Request, sessions: AppSessions, session: OwnSession, gallery: str | None = None, loop: bool = True
) -> DriverAnswer:
    """Drive by the body, a video, or by a clip of the gallery, from now on."""
    if gallery is not None:  # the player removes its file
        source = _find_bundled(gallery, "clip")
        path = Path(shutil.copyfile(source, session.folder / f"{secrets.token_hex(8)}{source.suffix}"))
    else:
        path = await receive(request, session.folder, sessions.server.clip_bytes, "clip")
    try:
        player = await run_named(path, "the clip", lambda: ClipPlayer(path, session, loop=loop))
    except RefusedError:
        path.unlink(missing_ok=True)
        raise
    await session.set_driver("clip", player)
    return DriverAnswer(duration_s=player.duration_s, fps=player.fps)


@router.put("/sessions/{ident}/template", tags=["Media"], openapi_extra=binary_body(_MOTION_FILE))
async def put_template(
    request: Request, sessions: AppSessions, session: OwnSession, loop: bool = True
) -> DriverAnswer:
    """Drive by the body, a motion file, from now on."""
    path = await receive(request, session.folder, sessions.server.template_bytes, "template")
    try:
        data = await asyncio.to_thread(path.read_bytes)
    finally:
        path.unlink(missing_ok=True)
    motion = await asyncio.to_thread(motion_clip_from_bytes, data, name="the template")
    player = MotionPlayer(await session.run_on_worker(lambda stream: stream.fit_motion(motion)), session, loop=loop)
    await session.set_driver("template", player)
    return DriverAnswer(duration_s=player.duration_s, fps=player.fps)


@router.post("/sessions/{ident}/template", tags=["Media"])
async def record_template(session: OwnSession, body: ChangeRecording) -> SessionState:
    """Begin or end recording the motion."""
    await session.run_on_worker(lambda stream: stream.set_recording(body.recording))
    return SessionState(**session.state())


@router.get(
    "/sessions/{ident}/template",
    tags=["Media"],
    response_class=Response,
    responses={200: {"content": {_MOTION_FILE: {}}}},
)
async def get_template(session: OwnSession) -> Response:
    """Return the motion recorded last, as a motion file."""
    motion = await session.run_on_worker(lambda stream: stream.recorded_motion())
    data = await asyncio.to_thread(motion_file_bytes, motion)
    headers = {"Content-Disposition": 'attachment; filename="performance.safetensors"'}
    return Response(data, media_type=_MOTION_FILE, headers=headers)


def _find_bundled(name: str, kind: str | None = None) -> Path:
    """File of the gallery, of this kind where it matters."""
    if name not in _GALLERY:
        raise RefusedError("not_found", f"no {name[:40]!r} in the gallery: there are {', '.join(_GALLERY)}")
    item, path = _GALLERY[name]
    if kind not in (None, item.kind):
        raise RefusedError("unusable_input", f"{name!r} is a {item.kind}, not a {kind}")
    return path
