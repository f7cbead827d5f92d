"""Bodies of requests into files of our own naming, within limits, whole or not at all."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from personalive.errors import InputError
from personalive.live.errors import RefusedError
from personalive.media import load_still
from personalive.media.config import MediaConfig
from personalive.server.config import ServerConfig


async def receive(request: Request, folder: Path, limit_bytes: int, what: str) -> Path:
    """The body as a new file in ``folder``.

    Raises:
        RefusedError: empty, larger than ``limit_bytes``, cut off, or too slow. Then nothing is left.
    """
    limit_s = ServerConfig.upload_s
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit_bytes:
        raise _too_large(what, limit_bytes)
    path = folder / secrets.token_hex(8)
    try:
        async with asyncio.timeout(limit_s):
            count = await _write(request, path, limit_bytes, what)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, ClientDisconnect):
            raise RefusedError("bad_request", f"the {what} was cut off before its end: send it again") from None
        if isinstance(error, TimeoutError):
            raise RefusedError("bad_request", f"the {what} took more than {limit_s:.0f} s") from None
        raise
    if not count:
        path.unlink(missing_ok=True)
        raise RefusedError("bad_request", f"the request has no body: send the {what} as it")
    return path


async def _write(request: Request, path: Path, limit_bytes: int, what: str) -> int:
    count = 0
    with path.open("xb") as file:
        async for part in request.stream():
            count += len(part)
            if count > limit_bytes:
                raise _too_large(what, limit_bytes)
            await asyncio.to_thread(file.write, part)
    return count


def _too_large(what: str, limit_bytes: int) -> RefusedError:
    return RefusedError("too_large", f"the {what} is larger than {limit_bytes / 1e6:.0f} MB: send a smaller one")


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a small JSON object; empty where there is no body.

    Raises:
        RefusedError: something else, or too long.
    """
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > ServerConfig.message_bytes:
            raise RefusedError("too_large", f"the body may have {ServerConfig.message_bytes} bytes")
    try:
        values = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise RefusedError("bad_request", "the body must be a JSON object")
    return values


async def read_picture(path: Path, config: ServerConfig) -> Any:
    """(H, W, 3) uint8 of an uploaded picture, which is removed.

    Raises:
        RefusedError: not a usable picture, or too many pixels.
    """
    limits = MediaConfig(max_image_pixels=config.portrait_pixels)
    try:
        return await named(path, "the picture", lambda: load_still(path, limits))
    finally:
        path.unlink(missing_ok=True)


async def named(path: Path, what: str, work: Callable[[], Any]) -> Any:
    """Run ``work`` beside the event loop; its errors name ``what``, never our paths.

    Raises:
        RefusedError: instead of ``InputError``.
    """
    try:
        return await asyncio.to_thread(work)
    except InputError as error:
        text = str(error).replace(f"{path}:", what).replace(str(path), what)
        raise RefusedError("unusable_input", text) from None
