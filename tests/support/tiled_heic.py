"""HEIC images in tiles, as phones write them: a grid item over separately coded squares."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image


def write_tiled_heic(path: Path, image: np.ndarray, tile_px: int = 64, *, quarter_turns: int = 0) -> Path:
    """``image`` (H, W, 3) uint8 in tiles; ``quarter_turns`` anticlockwise are left to the reader."""
    pillow_heif.register_heif_opener()
    height, width = image.shape[:2]
    rows, columns = -(-height // tile_px), -(-width // tile_px)
    padded = np.pad(image, ((0, rows * tile_px - height), (0, columns * tile_px - width), (0, 0)), mode="edge")
    coded = [
        _coded(padded[top : top + tile_px, left : left + tile_px])
        for top in range(0, rows * tile_px, tile_px)
        for left in range(0, columns * tile_px, tile_px)
    ]
    (decoder,) = {decoder for decoder, _ in coded}  # one for all tiles
    grid = bytes([0, 0, rows - 1, columns - 1]) + width.to_bytes(2) + height.to_bytes(2)
    payloads = [*[content for _, content in coded], grid]
    ids = range(1, len(payloads) + 1)
    whole = ids[-1]
    ftyp = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    properties = _box(
        b"ipco",
        decoder
        + _full(b"ispe", tile_px.to_bytes(4) * 2)
        + _full(b"ispe", width.to_bytes(4) + height.to_bytes(4))
        + _box(b"irot", bytes([quarter_turns])),
    )
    used = [number.to_bytes(2) + bytes([2, 0x81, 2]) for number in ids[:-1]] + [
        whole.to_bytes(2) + bytes([2, 3, 0x84])
    ]
    entries = [
        _full(b"infe", number.to_bytes(2) + bytes(2) + (b"grid" if number == whole else b"hvc1") + b"\0", version=2)
        for number in ids
    ]
    parts = [
        _full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
        _full(b"pitm", whole.to_bytes(2)),
        _full(b"iinf", len(entries).to_bytes(2) + b"".join(entries)),
        _full(b"iref", _box(b"dimg", whole.to_bytes(2) + len(coded).to_bytes(2) + b"".join(map(_two, ids[:-1])))),
        _box(b"iprp", properties + _full(b"ipma", len(used).to_bytes(4) + b"".join(used))),
    ]
    length = len(_full(b"meta", b"".join(parts) + _places(payloads, 0)))
    first = len(ftyp) + length + 8
    meta = _full(b"meta", b"".join(parts) + _places(payloads, first))
    path.write_bytes(ftyp + meta + _box(b"mdat", b"".join(payloads)))
    return path


def _coded(tile: np.ndarray) -> tuple[bytes, bytes]:
    """The decoder's configuration and the content of one tile."""
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, "HEIF", quality=95)
    data = buffer.getvalue()
    at, content = data.index(b"hvcC") - 4, data.index(b"mdat") - 4
    return data[at : at + int.from_bytes(data[at : at + 4])], data[content + 8 :]


def _places(payloads: list[bytes], first: int) -> bytes:
    body, at = bytes([0x44, 0]) + len(payloads).to_bytes(2), first
    for number, payload in enumerate(payloads, 1):
        body += number.to_bytes(2) + bytes(2) + (1).to_bytes(2) + at.to_bytes(4) + len(payload).to_bytes(4)
        at += len(payload)
    return _full(b"iloc", body)


def _two(number: int) -> bytes:
    return number.to_bytes(2)


def _box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4) + kind + body


def _full(kind: bytes, body: bytes, *, version: int = 0) -> bytes:
    return _box(kind, bytes([version, 0, 0, 0]) + body)
