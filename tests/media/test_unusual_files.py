"""Files as cameras, editors, downloads and screen recorders leave them: read rightly, or refused with the reason."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
from av.bitstream import BitStreamFilterContext
from av.filter import Graph
from av.packet import Packet
from PIL import Image, ImageCms, PngImagePlugin

from personalive.errors import InputError
from personalive.media.reader import open_video
from personalive.media.still import load_still
from support.tiled_heic import write_tiled_heic

SIDE = 64


def numbered_image(number: int, side: int = SIDE) -> np.ndarray:
    """A grey that names its frame, with a red quarter at the top left."""
    image = np.full((side, side, 3), 16 + 7 * (number % 32), np.uint8)
    image[: side // 2, : side // 2] = (230, 30, 30)
    return image


def read(path: Path, start_s: float | None = None):
    with open_video(path, start_s) as reader:
        frames = list(reader)
    return reader, frames


def numbers(frames) -> list[int]:
    """Numbers of the images."""
    return [round((float(frame.image[-8:, -8:].mean()) - 16) / 7) for frame in frames]


def red_corner(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    corners = {"tl": image[8, 8], "tr": image[8, width - 9], "bl": image[height - 9, 8], "br": image[-9, -9]}
    return max(corners, key=lambda name: int(corners[name][0]) - int(corners[name][1]))


def encode(path: Path, count: int = 25, fps: int = 25, codec: str = "libx264", *, bsf: str = "", **options) -> Path:
    """Write ``count`` images."""
    container = options.pop("container", None)
    side = options.pop("side", SIDE)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=fps, width=side, height=side)
        stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        filters = BitStreamFilterContext(bsf, stream) if bsf else None
        for number in [*range(count), None]:
            frame = None
            if number is not None:
                frame = av.VideoFrame.from_ndarray(numbered_image(number, side), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
            for packet in stream.encode(frame):
                out.mux(filters.filter(packet) if filters else packet)
    return path


def jpeg(number: int, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(numbered_image(number)).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


# --- side data that PyAV has no name for ---------------------------------------------------------------------


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Camera"
    return exif.tobytes()


def _motion_jpeg(path: Path, images: list[bytes]) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25, width=SIDE, height=SIDE)
        stream.pix_fmt = "yuvj420p"
        for number, content in enumerate(images):
            packet = Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, True
            out.mux(packet)
    return path


@pytest.mark.parametrize("name", ["t.mov", "e.mov", "e.mkv", "e.avi"])
def test_frames_with_exif_beside_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "t.mov":
        encode(path, 5, codec="tiff", pix_fmt="rgb24")
    else:
        _motion_jpeg(path, [jpeg(number, exif=_turned(1)) for number in range(5)])
    reader, frames = read(path)
    assert numbers(frames) == list(range(5))
    assert red_corner(frames[0].image) == "tl"
    assert reader.warnings == []


@pytest.mark.parametrize(("orientation", "corner"), [(6, "tr"), (3, "br"), (2, "tr")])
def test_motion_jpeg_that_exif_turns(tmp_path: Path, orientation: int, corner: str) -> None:
    _, frames = read(_motion_jpeg(tmp_path / "e.mov", [jpeg(0, exif=_turned(orientation))] * 3))
    assert red_corner(frames[0].image) == corner


# --- colours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("matrix", "name"), [(8, "YCgCo"), (14, "ICtCp"), (10, "constant luminance")])
def test_colours_that_cannot_be_converted_are_refused_with_the_command(
    tmp_path: Path, matrix: int, name: str
) -> None:
    path = encode(tmp_path / "c.ts", bsf=f"h264_metadata=matrix_coefficients={matrix}")
    with pytest.raises(InputError, match=rf"c\.ts: .*{name}.*ffmpeg -i c\.ts -vf zscale=matrix=709") as refused:
        open_video(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("matrix", [3, 200])
def test_reserved_colours_count_as_unspecified(tmp_path: Path, matrix: int) -> None:
    _, frames = read(encode(tmp_path / "c.ts", bsf=f"h264_metadata=matrix_coefficients={matrix}"))
    _, expected = read(encode(tmp_path / "p.ts"))
    assert np.array_equal(frames[3].image, expected[3].image)


# --- stills -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "tEXt"])
def test_pngs_with_megabytes_of_text_or_profile(tmp_path: Path, kind: str) -> None:
    path, info, options = tmp_path / "p.png", PngImagePlugin.PngInfo(), {}
    if kind == "iCCP":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        options["icc_profile"] = profile + bytes(3_000_000)
    elif kind == "iTXt":
        info.add_itxt("workflow", "{} " * 1_000_000, zip=True)
    else:
        info.add_text("workflow", "{} " * 1_000_000, zip=kind == "zTXt")
    Image.fromarray(numbered_image(3)).save(path, pnginfo=info, **options)
    assert np.abs(load_still(path).astype(int) - numbered_image(3)).max() <= 2
    assert len(read(path)[1]) == 50


def _malformed(tag: int, kind: int, count: int, value: int) -> bytes:
    """EXIF that asks for a quarter turn behind another entry, of a type that does not suit it or outside the file."""
    entries = struct.pack("<HHII", tag, kind, count, value) + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)


_ENTRIES = [  # tag, type, count, value
    (0x0100, 1, 1, 0xFFFFFFFF),  # width as a byte
    (0x011A, 1, 1, 8),  # resolution as a byte
    (0x011A, 11, 1, 0xFFFFFFFF),  # resolution as not a number
    (0x010F, 5, 1, 8),  # maker as a fraction
    (0x010F, 3, 4, 0xFFFFFFFF),  # maker outside the file
    (0x8769, 6, 1, 0xFFFFFFFF),  # a directory at a negative place
]


@pytest.mark.parametrize("entry", _ENTRIES)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_beside_a_malformed_tag(tmp_path: Path, suffix: str, entry: tuple[int, int, int, int]) -> None:
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(numbered_image(3)).save(path, exif=_malformed(*entry))
    assert red_corner(load_still(path)) == "tr"
    _, frames = read(path)
    assert red_corner(frames[0].image) == "tr"


@pytest.mark.parametrize(("orientation", "corner"), [(1, "tl"), (6, "tr"), (3, "br")])
@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_heic_and_avif_in_both_roles(tmp_path: Path, suffix: str, orientation: int, corner: str) -> None:
    pillow_heif.register_heif_opener()
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(numbered_image(20, 256)).save(path, quality=90, exif=_turned(orientation))
    image = load_still(path)
    assert image.shape == (256, 256, 3)
    assert red_corner(image) == corner
    _, frames = read(path)
    assert len(frames) == 50
    assert np.array_equal(frames[0].image, image)


@pytest.mark.parametrize(("turns", "corner"), [(0, "tl"), (1, "bl"), (3, "tr")])
def test_tiled_heic_is_read_whole_in_both_roles(tmp_path: Path, turns: int, corner: str) -> None:
    path = write_tiled_heic(tmp_path / "p.heic", numbered_image(20, 192)[:150], quarter_turns=turns)
    image = load_still(path)
    assert image.shape == ((150, 192, 3) if turns == 0 else (192, 150, 3))
    assert red_corner(image) == corner
    _, frames = read(path)
    assert np.array_equal(frames[0].image, image)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_images_that_cannot_be_read_are_refused_alike_in_both_roles(tmp_path: Path, brand: bytes) -> None:
    path = encode(tmp_path / "p.heic", container="mp4")
    path.write_bytes(path.read_bytes().replace(b"ftypisom", b"ftyp" + brand, 1))  # FFmpeg would read it
    said = []
    for opened in (load_still, open_video):
        with pytest.raises(InputError) as refused:
            opened(path)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert "image" in said[0]


# --- animations ---------------------------------------------------------------------------------------------


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _apng(path: Path, delays: list[tuple[int, int]], *, hidden: bool = False) -> Path:
    """An animated PNG with rational delays; ``hidden`` puts an image that is no part of it first."""
    parts = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))]
    parts.append(_chunk(b"acTL", struct.pack(">II", len(delays), 0)))
    order = iter(range(10_000))
    if hidden:
        parts.append(_chunk(b"IDAT", _rows(np.full((SIDE, SIDE, 3), 255, np.uint8))))
    for number, delay in enumerate(delays):
        head = struct.pack(">IIIIIHHBB", next(order), SIDE, SIDE, 0, 0, *delay, 0, 0)
        parts.append(_chunk(b"fcTL", head))
        rows = _rows(numbered_image(number))
        first = number == 0 and not hidden
        parts.append(_chunk(b"IDAT", rows) if first else _chunk(b"fdAT", struct.pack(">I", next(order)) + rows))
    path.write_bytes(b"".join([*parts, _chunk(b"IEND", b"")]))
    return path


def _rows(image: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in image))


@pytest.mark.parametrize("delay", [(1, 60), (1001, 30_000), (1, 24), (3, 100)])
def test_rational_delays_are_exact(tmp_path: Path, delay: tuple[int, int]) -> None:
    reader, frames = read(_apng(tmp_path / "a.png", [delay] * 30))
    assert [frame.time for frame in frames] == [number * Fraction(*delay) for number in range(30)]
    assert reader.info.average_fps == 1 / Fraction(*delay)


def test_delays_of_browsers_mistakes(tmp_path: Path) -> None:
    _, frames = read(_apng(tmp_path / "a.png", [(1, 100), (0, 100), (11, 1000), (1, 50)]))
    assert [frame.time for frame in frames] == [Fraction(ms, 1000) for ms in (0, 100, 200, 211)]


@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_sixty_frames_per_second(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    first, *rest = (Image.fromarray(numbered_image(number)) for number in range(12))
    first.save(path, save_all=True, append_images=rest, duration=16)
    _, frames = read(path)
    assert [frame.time for frame in frames] == [Fraction(16 * number, 1000) for number in range(12)]


def test_the_hidden_image_of_an_animation_does_not_drive(tmp_path: Path) -> None:
    for hidden in (False, True):
        _, frames = read(_apng(tmp_path / "a.png", [(1, 25)] * 3, hidden=hidden))
        assert numbers(frames) == [0, 1, 2]


# --- lengths ------------------------------------------------------------------------------------------------


def _joined(path: Path, *, sound_s: float = 0.0, start_s: float = 0.0) -> Path:
    """A second of video, with sound of another length, later than 0."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, width=SIDE, height=SIDE, options={"bf": "0"})
        video.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=48_000, layout="mono") if sound_s else None
        for number in [*range(25), None]:
            frame = None
            if number is not None:
                frame = av.VideoFrame.from_ndarray(numbered_image(number), format="rgb24")
                frame.pts, frame.time_base = number + round(25 * start_s), Fraction(1, 25)
            out.mux(video.encode(frame))
        if sound is not None:
            for begin in range(round(48_000 * start_s), round(48_000 * (start_s + sound_s)), 1024):
                piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                piece.sample_rate, piece.time_base, piece.pts = 48_000, Fraction(1, 48_000), begin
                out.mux(sound.encode(piece))
            out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.flv", "a.ts", "a.avi"])
@pytest.mark.parametrize("options", [{"sound_s": 6.0}, {"start_s": 500.0}, {"sound_s": 6.0, "start_s": 500.0}])
def test_the_length_is_that_of_the_video(tmp_path: Path, name: str, options: dict[str, float]) -> None:
    reader, frames = read(_joined(tmp_path / name, **options))
    assert len(frames) == 25
    assert [line for line in reader.warnings if "truncated" in line] == []
    if not name.endswith(("flv", "avi")):  # FLV states one length for all; AVI knows no other start than 0
        assert reader.info.estimated_frames == pytest.approx(25, abs=2)


def test_a_cut_off_matroska_with_sound_is_still_reported(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", 250, gop_size=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader, frames = read(path)
    assert 20 < len(frames) < 200
    assert any("truncated" in line for line in reader.warnings)


# --- streams without a container ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s.mjpeg", "s.mjpg", "s.jpg"])
def test_raw_motion_jpeg_plays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"".join(jpeg(number, exif=_turned(1)) for number in range(7)))
    reader, frames = read(path)
    assert numbers(frames) == list(range(7))
    assert reader.warnings == [f"{path}: states no frame rate; 25 per second are taken"]
    assert np.abs(load_still(path).astype(int) - numbered_image(0)).mean() < 3  # as a portrait, the first


def test_photographs_with_something_behind_them_stay_stills(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    for behind in (b"\0" * 100, b"ftypmp42" * 10, b"\xff\xd9\xff\xd8"):
        path.write_bytes(jpeg(0) + behind)
        assert len(read(path)[1]) == 50
    first, second = Image.fromarray(numbered_image(0)), Image.fromarray(numbered_image(1))
    first.save(path, "MPO", save_all=True, append_images=[second])
    assert len(read(path)[1]) == 50


@pytest.mark.parametrize("fps", [50, 30, 12])
@pytest.mark.parametrize(("suffix", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("m2v", "mpeg2video")])
def test_raw_streams_keep_their_rate(tmp_path: Path, suffix: str, codec: str, fps: int) -> None:
    if codec == "mpeg2video" and fps == 12:
        fps = 24  # not a rate of MPEG-2
    path = encode(tmp_path / f"s.{suffix}", 20, fps, codec)
    reader, frames = read(path)
    assert [frame.time for frame in frames] == [Fraction(number, fps) for number in range(20)]
    assert reader.info.average_fps == fps
    assert reader.warnings == []
    assert numbers(read(path, 0.25)[1]) == list(range(-(-fps // 4), 20))


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("x.avi", "libx264"), ("m.avi", "mpeg2video")])
@pytest.mark.parametrize("start_s", [0.4, 1.0, 2.2])
def test_avi_with_frames_out_of_order_begins_where_asked(
    tmp_path: Path, name: str, codec: str, start_s: float
) -> None:
    path = encode(tmp_path / name, 75, codec=codec, max_b_frames=2, gop_size=12, bit_rate=3_000_000)
    _, frames = read(path, start_s)
    assert numbers(frames) == [number % 32 for number in range(round(25 * start_s), 75)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mxf", {"codec": "mpeg2video", "side": 256}),
        ("a.y4m", {"codec": "rawvideo", "container": "yuv4mpegpipe"}),
        ("a.ivf", {"codec": "libvpx"}),
        ("a.m4v", {"codec": "mpeg4", "container": "m4v", "bit_rate": 3_000_000}),
    ],
)
def test_further_formats(tmp_path: Path, name: str, options: dict) -> None:
    _, frames = read(encode(tmp_path / name, **options))
    assert len(frames) == 25
    assert numbers(frames) == list(range(25))


def test_a_format_that_is_not_read_says_so(tmp_path: Path) -> None:
    for name, codec in (("a.nut", "mpeg2video"), ("a.swf", "flv")):
        path = encode(tmp_path / name, codec=codec)
        with pytest.raises(InputError, match=rf"of a format that is not read here.*ffmpeg -i {name}"):
            open_video(path)


# --- interlaced, damaged ------------------------------------------------------------------------------------


def _top_field_first(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", mode="tff"), graph.add("buffersink")).configure()
    return graph


def _interlaced(path: Path, codec: str, fields: np.ndarray) -> Path:
    graph = None
    with av.open(str(path), "w") as out:
        height, width = fields.shape[1:]
        options = {"x264-params": "interlaced=1:tff=1"} if codec == "libx264" else {"flags": "+ildct+ilme"}
        stream = out.add_stream(codec, rate=25, width=width, height=height, options=options)
        stream.pix_fmt = "yuv420p"
        for number in [*range(len(fields) // 2), None]:
            frame = None
            if number is not None:
                woven = fields[2 * number].copy()
                woven[1::2] = fields[2 * number + 1, 1::2]
                frame = av.VideoFrame.from_ndarray(np.repeat(woven[..., None], 3, 2), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                graph = graph or _top_field_first(frame)
                graph.push(frame)
                frame = graph.pull()
                assert frame.interlaced_frame
            out.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize(("name", "codec"), [("i.mp4", "libx264"), ("i.mpg", "mpeg2video"), ("i.ts", "libx264")])
def test_interlaced_frames_are_made_whole(tmp_path: Path, name: str, codec: str) -> None:
    fields = np.full((40, 128, 192), 40, np.uint8)
    for number in range(40):  # a bar that moves by 4 px per field: combed edges where fields are woven
        fields[number, :, 8 + 4 * number : 28 + 4 * number] = 220
    path = _interlaced(tmp_path / name, codec, fields)
    reader, frames = read(path)
    assert len(frames) == 20
    assert [round(float(frame.time) * 25) for frame in frames] == list(range(20))
    assert reader.warnings == [f"{path}: is interlaced; its fields were made whole frames (bwdif)"]
    for frame in frames[4:16]:
        rows = frame.image[..., 0].astype(int)
        assert np.abs(rows[20:100:2] - rows[21:101:2]).max() < 90  # combed: 180


def _damaged(path: Path, share: float, count: int) -> Path:
    content = bytearray(path.read_bytes())
    at = int(len(content) * share)
    content[at : at + count] = np.random.default_rng(1).integers(0, 256, count, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["d.mkv", "d.webm", "d.ts"])
def test_frames_lost_by_damage_are_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", container_options={"cluster_time_limit": "400"} if name[-1] != "s" else {}) as out:
        codec = "libvpx" if name.endswith("webm") else "libx264"
        stream = out.add_stream(codec, rate=25, width=SIDE, height=SIDE, options={"g": "5"})
        stream.pix_fmt = "yuv420p"
        for number in [*range(100), None]:
            frame = None
            if number is not None:
                noise = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
    assert read(path)[0].warnings == []
    reader, frames = read(_damaged(path, 0.5, 4000))
    assert len(frames) < 100 or any("incomplete" in line for line in reader.warnings)
    assert reader.warnings


def test_recordings_of_varying_rate_miss_nothing(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    ticks = np.cumsum([40, 41, 133, 33, 80, 20, 400, 33, 50, 61, 300, 33] * 3)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=SIDE, height=SIDE, time_base=Fraction(1, 1000))
        stream.pix_fmt = "yuv420p"
        for tick in [*ticks.tolist(), None]:
            frame = None
            if tick is not None:
                frame = av.VideoFrame.from_ndarray(numbered_image(0), format="rgb24")
                frame.pts, frame.time_base = tick, Fraction(1, 1000)
            out.mux(stream.encode(frame))
    assert read(path)[0].warnings == []
