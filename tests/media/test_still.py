"""Any common still becomes upright 8-bit RGB; everything else is refused in one line."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from personalive.errors import InputError, OutputError
from personalive.media.config import MediaConfig
from personalive.media.still import is_still, load_still, save_png

GREY = MediaConfig().background_grey


def _quarters() -> np.ndarray:
    """Four colours, so that every turn and mirror is told apart: 60 wide, 40 high."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30], image[:20, 30:] = (200, 40, 40), (40, 200, 40)
    image[20:, :30], image[20:, 30:] = (40, 40, 200), (220, 220, 60)
    return image


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [
        ("a.png", "RGB", 0),
        ("a.bmp", "RGB", 0),
        ("a.tiff", "RGB", 0),
        ("a.ppm", "RGB", 0),
        ("p.png", "P", 0),
        ("p.gif", "P", 0),
        ("a.jpg", "RGB", 24),
        ("a.webp", "RGB", 40),
        ("c.jpg", "CMYK", 24),
        ("c.tiff", "CMYK", 0),
    ],
)
def test_common_formats(tmp_path: Path, name: str, mode: str, tolerance: int) -> None:
    image = Image.fromarray(_quarters())
    (image.quantize(16) if mode == "P" else image.convert(mode)).save(tmp_path / name)
    loaded = load_still(tmp_path / name)
    assert loaded.dtype == np.uint8
    assert loaded.shape == (40, 60, 3)
    assert loaded.flags.writeable
    for row, column in ((5, 5), (5, 55), (35, 5), (35, 55)):
        difference = loaded[row, column].astype(int) - _quarters()[row, column]
        assert np.abs(difference).max() <= tolerance


def test_grey_and_bilevel(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (40, 1))
    Image.fromarray(ramp).save(tmp_path / "g.png")
    assert (load_still(tmp_path / "g.png") == ramp[..., None]).all()
    Image.fromarray(ramp > 127).save(tmp_path / "b.png")
    assert (load_still(tmp_path / "b.png") == np.where(ramp > 127, 255, 0)[..., None]).all()


@pytest.mark.parametrize("name", ["g16.png", "g16.tiff", "f.tiff"])
def test_deep_grey_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    deep = np.tile(np.arange(64, dtype=np.uint16) * 1040, (40, 1))
    values = deep.astype(np.float32) / 65535 if name.startswith("f") else deep
    Image.fromarray(values).save(tmp_path / name)
    expected = np.round(deep / 65535 * 255).astype(int)
    assert np.abs(load_still(tmp_path / name)[..., 1].astype(int) - expected).max() <= 1


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), ">u2")
    pixels[..., 0], pixels[..., 1] = 0x8040, 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    (tmp_path / "rgb16.png").write_bytes(png + chunk(b"IEND", b""))
    assert (load_still(tmp_path / "rgb16.png") == (0x80, 0xFF, 0)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_neutral_grey(tmp_path: Path, mode: str) -> None:
    rgba = np.full((40, 40, 4), 255, np.uint8)
    rgba[:, :20, 3] = 0
    image = Image.fromarray(rgba)
    if mode == "P":
        indexed = Image.fromarray(np.where(rgba[..., 3] > 0, 1, 0).astype(np.uint8))
        indexed.putpalette([255, 0, 0, 255, 255, 255])
        indexed.save(tmp_path / "t.png", transparency=0)
    else:
        image.convert(mode).save(tmp_path / "t.png")
    loaded = load_still(tmp_path / "t.png")
    assert (loaded[:, :20] == GREY).all()
    assert (loaded[:, 20:] == 255).all()


def test_half_transparency_mixes(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (255, 0, 0, 128)).save(tmp_path / "h.png")
    assert np.abs(load_still(tmp_path / "h.png")[0, 0].astype(int) - (192, 64, 64)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = _quarters()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # the camera says: turn me clockwise
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"o.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    loaded = load_still(path)
    assert loaded.shape == upright.shape
    for row, column in ((8, 8), (8, 52), (32, 8), (32, 52)):
        assert np.abs(loaded[row, column].astype(int) - upright[row, column]).max() < 40


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=80, **_lossless(name))
        assert (load_still(tmp_path / name) == (255, 0, 0)).all()
        assert not is_still(tmp_path / name)


def _lossless(name: str) -> dict[str, bool]:
    return {"lossless": True} if name.endswith("webp") else {}


def test_colour_profile_is_converted(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40), (200, 100, 50))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image.save(tmp_path / "s.png", icc_profile=srgb.tobytes())
    assert np.abs(load_still(tmp_path / "s.png")[0, 0].astype(int) - (200, 100, 50)).max() <= 1
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    image.save(tmp_path / "wrong.png", icc_profile=lab.tobytes())  # does not fit RGB: ignored
    assert (load_still(tmp_path / "wrong.png") == (200, 100, 50)).all()


def _png_claiming(path: Path, width: int, height: int) -> Path:
    Image.new("L", (64, 64)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("side", [9_500, 10_100, 20_000, 60_000])
def test_size_limit_is_checked_on_the_header(tmp_path: Path, side: int) -> None:
    path = _png_claiming(tmp_path / "bomb.png", side, side)
    assert is_still(path)
    with pytest.raises(InputError) as error:
        load_still(path)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    # Within the limit the header passes and the missing pixels are what is wrong.
    assert ("damaged" if side < 10_000 else "million pixels") in text


def test_too_small(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(InputError, match=r"1 x 1; each side needs at least 32"):
        load_still(tmp_path / "dot.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.tiff"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_cut_off_images_are_refused(tmp_path: Path, name: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: max(int(len(data) * share), 8)])
    with pytest.raises(InputError) as error:
        load_still(tmp_path / name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_not_images(tmp_path: Path, clip: Callable[..., Path]) -> None:
    text = tmp_path / "notes.png"
    text.write_text("hello, not an image at all")
    script = tmp_path / "x.png"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    for path, cause in (
        (text, "PNG"),
        (script, "PNG"),
        (clip("video.mp4", pts=range(3)), "PNG"),
    ):
        assert not is_still(path)
        with pytest.raises(InputError, match=cause) as error:
            load_still(path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        is_still(tmp_path / "none.png")


def test_phone_images_with_a_second_view_are_stills(tmp_path: Path) -> None:
    views = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    views[0].save(tmp_path / "p.jpg", format="MPO", save_all=True, append_images=views[1:])
    assert is_still(tmp_path / "p.jpg")
    assert np.abs(load_still(tmp_path / "p.jpg")[0, 0].astype(int) - (255, 0, 0)).max() <= 4


def test_save_png_round_trip_and_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.png"
    assert save_png(path, _quarters()) == path
    assert (load_still(path) == _quarters()).all()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_png(path, _quarters()[::-1])
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    assert (load_still(path) == _quarters()).all()
    with pytest.raises(OutputError, match="input"):
        save_png(path, _quarters(), inputs=(path,))
