"""Hostile and odd files for every input that takes one: the same for the same seed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pillow_heif
from PIL import Image, PngImagePlugin

from personalive.offline.motion_file import motion_file_bytes
from support.channel_orders import write_custom_order
from support.templates import made_template
from support.tiled_heic import write_tiled_heic

Role = Literal["portrait", "driving", "motion"]
_ROLES: tuple[Role, ...] = ("driving", "portrait", "driving", "motion", "driving", "portrait", "driving")
_EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_SUFFIXES = ("mp4", "mov", "mkv", "avi", "ts", "png", "jpg", "webp", "gif", "heic", "wav", "safetensors", "txt", "")


@dataclass(frozen=True)
class HostileFile:
    """One file and what was done to it."""

    path: Path
    role: Role
    made_from: str
    change: str


def hostile_files(folder: Path, count: int, seed: int) -> Iterator[HostileFile]:
    """Write ``count`` files, one at a time; each is gone when the next one comes."""
    rng = np.random.default_rng(seed)
    good = {"driving": _clips(folder), "portrait": _stills(folder), "motion": _motion()}
    for number in range(count):
        role = _ROLES[number % len(_ROLES)]
        name, content = _pick(rng, list(good[role].items()))
        everything = [content for files in good.values() for content in files.values()]
        change, changed = hostile(rng, content, everything)
        suffix = _pick(rng, _SUFFIXES) if change == "renamed" else name.rpartition(".")[2]
        path = folder / f"{number:04}.{suffix}"
        path.write_bytes(changed)
        yield HostileFile(path, role, name, change)
        path.unlink(missing_ok=True)


def hostile(rng: np.random.Generator, content: bytes, others: list[bytes]) -> tuple[str, bytes]:
    """Name of a change, and the content of a file after it; ``others`` are spliced in."""
    change = _pick(rng, list(_CHANGES))
    return change, _CHANGES[change](rng, content, others)


# --- what is done to a good file ----------------------------------------------------------------------------


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def _cut_off(rng: np.random.Generator, content: bytes, _: list[bytes]) -> bytes:
    return content[: int(len(content) * rng.random() ** 2)]


def _flipped(rng: np.random.Generator, content: bytes, _: list[bytes]) -> bytes:
    data = bytearray(content)
    for at in rng.integers(0, len(data), int(rng.choice([1, 8, 64, 512]))):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _noise(rng: np.random.Generator, content: bytes, _: list[bytes]) -> bytes:
    data, size = bytearray(content), int(rng.choice([16, 256, 4096]))
    at = int(rng.integers(0, max(len(data) - size, 1)))
    data[at : at + size] = rng.bytes(size)
    return bytes(data)


def _lying_header(rng: np.random.Generator, content: bytes, _: list[bytes]) -> bytes:
    data = bytearray(content)
    ends = [(0, min(400, len(data) - 4)), (max(len(data) - 900, 0), len(data) - 4)]  # an index may come last
    for _ in range(int(rng.integers(1, 6))):
        at, value, order = int(rng.integers(*_pick(rng, ends))), _pick(rng, _EXTREMES), _pick(rng, ("big", "little"))
        data[at : at + 4] = value.to_bytes(4, order)
    return bytes(data)


def _hole(rng: np.random.Generator, content: bytes, _: list[bytes]) -> bytes:
    first, second = sorted(int(at) for at in rng.integers(0, len(content), 2))
    return content[:first] + bytes(int(rng.choice([0, second - first]))) + content[second:]


def _repeated(rng: np.random.Generator, content: bytes, _: list[bytes]) -> bytes:
    first, second = sorted(int(at) for at in rng.integers(0, len(content), 2))
    return content[:second] + content[first:]


def _spliced(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    other = _pick(rng, others)
    return content[: int(len(content) * rng.random())] + other[int(len(other) * rng.random()) :]


def _as_it_is(_rng: np.random.Generator, content: bytes, _: list[bytes]) -> bytes:
    return content


_CHANGES: dict[str, Callable[[np.random.Generator, bytes, list[bytes]], bytes]] = {
    "cut off": _cut_off,
    "flipped": _flipped,
    "noise": _noise,
    "lying header": _lying_header,
    "hole": _hole,
    "repeated": _repeated,
    "spliced": _spliced,
    "renamed": _as_it_is,
    "odd but good": _as_it_is,
}


# --- good files, odd ones among them ------------------------------------------------------------------------


def _image(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x ^ y) & 255], axis=2).astype(np.uint8)


def _stills(folder: Path) -> dict[str, bytes]:
    pillow_heif.register_heif_opener()
    image, turned, found = Image.fromarray(_image(96, 80)), Image.Exif(), {}
    turned[0x0112], turned[0x010F] = 6, "Camera"
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "{} " * 700_000, zip=True)
    forms = {
        "a.png": {"pnginfo": text},
        "a.jpg": {"exif": turned.tobytes()},
        "a.webp": {"exif": turned.tobytes()},
        "a.tif": {},
        "a.bmp": {},
        "a.gif": {},
        "a.avif": {"exif": turned.tobytes()},
        "a.heic": {"exif": turned.tobytes()},
        "a.jp2": {},
        "a.ppm": {},
    }
    for name, options in forms.items():
        image.save(folder / name, **options)
        found[name] = (folder / name).read_bytes()
        (folder / name).unlink()
    found["tiles.heic"] = write_tiled_heic(folder / "tiles.heic", _image(160, 100)).read_bytes()
    (folder / "tiles.heic").unlink()
    for name, size in (("wide.png", (30_000, 32)), ("tall.jpg", (32, 30_000)), ("dot.png", (1, 1))):
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, name[-3:].replace("jpg", "jpeg"))
        found[name] = buffer.getvalue()
    return found


def _motion() -> dict[str, bytes]:
    return {f"{frames}.safetensors": motion_file_bytes(made_template(frames)) for frames in (1, 6, 40)}


_VIDEOS = {  # name: codec, frames, frames per second, side, sound
    "a.mp4": ("libx264", 8, 25, 64, "aac"),
    "a.mkv": ("libx264", 8, 30, 64, "flac"),
    "a.mov": ("mjpeg", 6, 25, 64, "pcm_s16le"),
    "a.avi": ("mpeg4", 8, 25, 64, "mp3"),
    "a.ts": ("libx264", 8, 50, 64, "ac3"),
    "a.webm": ("libvpx", 8, 25, 64, "libopus"),
    "a.flv": ("flv", 6, 25, 64, None),
    "a.h264": ("libx264", 8, 50, 64, None),
    "a.m2v": ("mpeg2video", 6, 25, 64, None),
    "slow.mp4": ("libx264", 3, 1, 64, None),
    "fast.mkv": ("libx264", 8, 1000, 64, None),
    "small.mp4": ("libx264", 3, 25, 16, None),
    "large.mp4": ("mpeg4", 2, 25, 1024, None),
}


def _clips(folder: Path) -> dict[str, bytes]:
    found = {}
    for name, (codec, frames, fps, side, sound) in _VIDEOS.items():
        path = folder / name
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=fps, width=side, height=side)
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            heard = out.add_stream(sound, rate=48_000, layout="stereo") if sound else None
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.roll(_image(side, side), 3 * number, axis=1), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
            if heard is not None:
                piece = av.AudioFrame.from_ndarray(np.zeros((1, 19_200), np.int16), format="s16", layout="stereo")
                piece.sample_rate, piece.pts, piece.time_base = 48_000, 0, Fraction(1, 48_000)
                out.mux(heard.encode(piece))
                out.mux(heard.encode(None))
        found[name] = path.read_bytes()
        path.unlink()
    found["order.mov"] = write_custom_order(folder / "order.mov", {"FR": 700, "FL": 400}).read_bytes()
    (folder / "order.mov").unlink()
    images = [Image.fromarray(np.roll(_image(64, 64), 3 * number, axis=1)) for number in range(4)]
    for name in ("a.gif", "a.webp", "a.png", "a.avif"):
        buffer = io.BytesIO()
        form = name[2:].upper()
        images[0].save(buffer, form, save_all=True, append_images=images[1:], duration=16)
        found[name] = buffer.getvalue()
    jpegs = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    return found | {"a.mjpeg": b"".join(jpegs), "a.jpg": jpegs[0]}
