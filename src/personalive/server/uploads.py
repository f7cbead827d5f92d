"""Uploads: bodies of requests written to files with names of our own, within limits, whole or not at all."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.requests import ClientDisconnect, Request

from personalive.errors import InputError
from personalive.live.errors import RefusedError
from personalive.media.config import MediaConfig
from personalive.media.isolated import load_isolated_still
from personalive.server.config import ServerConfig

T = TypeVar("T")
# Each takes a process and its memory: however many are sent at once, so many are decoded.
_DECODING = ThreadPoolExecutor(ServerConfig.decoders, thread_name_prefix="personalive-decoding")


def binary_body(*media_types: str) -> dict[str, Any]:
    """Describe a body that the route reads by itself, for OpenAPI."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"content": dict.fromkeys(media_types, schema)}}


def text_body(media_type: str) -> dict[str, Any]:
    """Describe a text that the route reads by itself, for OpenAPI."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"type": "string"}}}}}


async def receive(request: Request, folder: Path, limit_bytes: int, name: str) -> Path:
    """Write the body to a new file in ``folder``; errors call it ``name``.

    Raises:
        RefusedError: empty, larger than ``limit_bytes``, cut off, or too slow. Then nothing is left.
    """
    limit_s = ServerConfig.upload_s
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit_bytes:
        raise _too_large(name, limit_bytes)
    path = folder / secrets.token_hex(8)
    try:
        async with asyncio.timeout(limit_s):
            count = await _write(request, path, limit_bytes, name)
        if not count:
            raise RefusedError("bad_request", f"the request has no body: send the {name} as it")
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, ClientDisconnect):
            raise RefusedError("bad_request", f"the {name} was cut off before its end: send it again") from None
        if isinstance(error, TimeoutError):
            raise RefusedError("bad_request", f"the {name} took more than {limit_s:.0f} s") from None
        raise
    return path


async def _write(request: Request, path: Path, limit_bytes: int, name: str) -> int:
    count = 0
    with path.open("xb") as file:
        async for part in request.stream():
            count += len(part)
            if count > limit_bytes:
                raise _too_large(name, limit_bytes)
            await asyncio.to_thread(file.write, part)
    return count


def _too_large(name: str, limit_bytes: int) -> RefusedError:
    return RefusedError("too_large", f"the {name} is larger than {limit_bytes / 1e6:.0f} MB: send a smaller one")


async def read_image(path: Path, config: ServerConfig) -> np.ndarray:
    """Read an uploaded image (H, W, 3) uint8 RGB and remove the file.

    Raises:
        RefusedError: not a usable image, or too many pixels.
    """
    limits = MediaConfig(max_image_pixels=config.portrait_pixels)
    try:
        return await run_named(path, "the portrait", lambda: load_isolated_still(path, limits))
    finally:
        path.unlink(missing_ok=True)


async def run_named(path: Path, name: str, work: Callable[[], T]) -> T:
    """Run ``work`` on one of a few threads; its errors call the file ``name`` instead of giving its path.

    Raises:
        RefusedError: instead of ``InputError``.
    """
    try:
        return await asyncio.get_running_loop().run_in_executor(_DECODING, work)
    except InputError as error:
        raise RefusedError("unusable_input", renamed(str(error), path, name)) from None


def renamed(text: str, path: Path, name: str) -> str:
    """An error about the file at ``path`` for the client who sent it as ``name``: paths are the server's own."""
    return text.replace(f"{path}:", name).replace(str(path), name).replace(path.name, "FILE")
