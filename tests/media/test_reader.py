"""Driving clips: every frame once, upright, at its exact time, and one clear line about bad files."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.reader import open_video

NTSC = Fraction(1001, 30000)


def _read(path: Path, start: float | None = None, end: float | None = None):
    with open_video(path, start, end) as reader:
        frames = list(reader)
    return reader, frames


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
@pytest.mark.parametrize("step", [Fraction(1, 25), NTSC, Fraction(1, 30), Fraction(1, 60)])
def test_constant_rates_are_exact(clip: Callable[..., Path], video, name: str, step: Fraction) -> None:
    base = Fraction(1, step.denominator)
    path = clip(name, pts=[index * step.numerator for index in range(40)], time_base=base)
    reader, frames = _read(path)
    source = video(path)
    assert [frame.time for frame in frames] == [time - source.times[0] for time in source.times]
    assert len(frames) == 40
    assert frames[0].time == 0
    assert all(frame.time == frame.pts * reader.info.time_base for frame in frames)
    if not name.endswith(("mkv", "ts")):  # these two count in fixed units that do not hold every rate
        assert [frame.time for frame in frames] == [index * step for index in range(40)]
        assert reader.info.average_fps == 1 / step
        assert reader.info.estimated_frames == 40
    assert reader.warnings == []


def test_variable_rate(clip: Callable[..., Path], image) -> None:
    pts = [0, 40, 41, 100, 700, 1900, 1933]
    for name in ("v.mkv", "v.mp4"):
        _, frames = _read(clip(name, pts=pts, time_base=Fraction(1, 1000)))
        assert [frame.time for frame in frames] == [Fraction(tick, 1000) for tick in pts]
        for index, frame in enumerate(frames):
            assert np.abs(frame.image[40, 60].astype(int) - image(index)[40, 60]).max() <= 4


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_avi_with_frames_out_of_order(clip: Callable[..., Path], image, codec: str) -> None:
    reader, frames = _read(clip("a.avi", pts=range(40), codec=codec))
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(40)]
    assert reader.warnings == []
    for index, frame in enumerate(frames):
        assert abs(int(frame.image[40, 60, 1]) - int(image(index)[40, 60, 1])) <= 4


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ((None, None), range(50)),
        ((0, 1), range(25)),
        ((0.5, None), range(13, 50)),  # frame 12 begins at 0.48
        ((0.52, 0.56), range(13, 14)),
        ((1.0, 1.5), range(25, 38)),
        ((1.96, 9.0), range(49, 50)),
        ((None, 0.1), range(3)),
    ],
)
@pytest.mark.parametrize("name", ["c.mp4", "c.ts", "c.avi", "c.mkv"])
def test_cuts_keep_the_frames_that_begin_inside(
    clip: Callable[..., Path], image, name: str, cut: tuple, expected: range
) -> None:
    reader, frames = _read(clip(name, pts=range(50)), *cut)
    shown = [round((int(frame.image[40, 60, 1]) - 16) / 7) for frame in frames]
    assert shown == [index % 32 for index in expected]
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(len(expected))]
    assert reader.info.estimated_frames is not None


def test_browser_recording_without_duration_rate_or_index(tmp_path: Path) -> None:
    """A file as MediaRecorder saves it: variable rate, nothing stated, no way to seek."""
    path = tmp_path / "live.webm"
    pts = np.cumsum(np.random.default_rng(0).integers(30, 38, 60)).tolist()
    with av.open(str(path), "w", container_options={"live": "1"}) as out:
        stream = out.add_stream("libvpx", rate=1000, width=64, height=48, time_base=Fraction(1, 1000))
        stream.options.update({"deadline": "realtime", "cpu-used": "8"})
        stream.gop_size = 1000
        for tick in pts:
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    reader, frames = _read(path)
    assert [frame.time for frame in frames] == [Fraction(tick - pts[0], 1000) for tick in pts]
    assert frames[-1].duration == Fraction(pts[-1] - pts[-2], 1000)
    assert reader.info.duration_s is None
    assert reader.info.estimated_frames is None
    assert reader.info.average_fps == MediaConfig().default_fps
    _, cut = _read(path, 1.0, 1.5)
    inside = [tick for tick in pts if 1000 <= tick - pts[0] < 1500]
    assert [frame.time for frame in cut] == [Fraction(tick - inside[0], 1000) for tick in inside]


_TURNS = {
    "none": ((65536, 0, 0, 0, 65536, 0, 0, 0, 2**30), lambda a: a),
    "left": ((0, -65536, 0, 65536, 0, 0, 0, 0, 2**30), lambda a: np.rot90(a, 1)),
    "right": ((0, 65536, 0, -65536, 0, 0, 0, 0, 2**30), lambda a: np.rot90(a, -1)),
    "half": ((-65536, 0, 0, 0, -65536, 0, 0, 0, 2**30), lambda a: np.rot90(a, 2)),
    "mirror": ((-65536, 0, 0, 0, 65536, 0, 0, 0, 2**30), lambda a: a[:, ::-1]),
    "flip": ((65536, 0, 0, 0, -65536, 0, 0, 0, 2**30), lambda a: a[::-1]),
    "transpose": ((0, 65536, 0, 65536, 0, 0, 0, 0, 2**30), lambda a: a.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("kind", _TURNS)
def test_display_matrix(clip: Callable[..., Path], image, kind: str) -> None:
    matrix, expected = _TURNS[kind]
    reader, frames = _read(clip(f"{kind}.mp4", pts=range(3), matrix=matrix))
    want = expected(image(2))
    assert frames[2].image.shape == want.shape
    assert (reader.info.height, reader.info.width) == want.shape[:2]
    assert np.abs(frames[2].image.astype(int) - want).mean() < 5
    assert frames[2].image.flags.c_contiguous


def test_player_turns_agree_with_pyav(clip: Callable[..., Path]) -> None:
    """Our "left" is what the library calls a quarter turn counter-clockwise."""
    with av.open(str(clip("l.mp4", pts=range(2), matrix=_TURNS["left"][0]))) as container:
        assert next(container.decode(video=0)).rotation == 90


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (1, True), (5, True)])
def test_colours_follow_the_tags(tmp_path: Path, matrix: int, full: bool) -> None:
    """A tagged clip of one YCbCr colour comes out as the RGB that its own standard defines."""
    path = tmp_path / "t.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=64, options={"qp": "0"})
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        frame = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(frame.planes, (120, 100, 170), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    y, cb, cr = (120 / 255, -28 / 255, 42 / 255) if full else ((120 - 16) / 219, -28 / 224, 42 / 224)
    kr, kb = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    _, frames = _read(path)
    expected = np.array([red, green, blue]) * 255
    assert np.abs(frames[0].image[32, 32] - expected).max() <= 2.5


def test_pixels_are_made_square(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=48)
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        out.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        out.mux(stream.encode(None))
    reader, frames = _read(path)
    assert (reader.info.width, reader.info.height) == (96, 48)
    assert frames[0].image.shape == (48, 96, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_play_once_with_their_own_times(tmp_path: Path, suffix: str) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    images = [Image.new("RGB", (40, 40), colour) for colour in colours]
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    durations = [100, 40, 200, 60]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)
    reader, frames = _read(path)
    assert [frame.time for frame in frames] == [Fraction(ms, 1000) for ms in (0, 100, 140, 340)]
    assert frames[-1].duration == Fraction(60, 1000)
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame.image[20, 20].astype(int) - colour).max() <= 8
    assert reader.audio is None
    _, cut = _read(path, 0.1, 0.3)
    assert [frame.time for frame in cut] == [0, Fraction(40, 1000)]


def test_transparent_gif_and_hasty_frames(tmp_path: Path) -> None:
    images = [Image.new("RGBA", (40, 40), (0, 0, 0, 0)) for _ in range(3)]
    for index, image in enumerate(images):
        image.paste((255, 255, 255, 255), (index * 10, 0, index * 10 + 10, 40))
    path = tmp_path / "t.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=0, disposal=2)
    _, frames = _read(path)
    step = Fraction(MediaConfig().animation_default_ms, 1000)
    assert [frame.time for frame in frames] == [0, step, 2 * step]
    for index, frame in enumerate(frames):
        assert (frame.image[20, index * 10 + 5] == 255).all()
        assert (frame.image[20, 35] == MediaConfig().background_grey).all()


def test_a_still_becomes_a_clip(tmp_path: Path) -> None:
    Image.new("RGB", (40, 48), (9, 99, 199)).save(tmp_path / "s.png")
    config = MediaConfig()
    reader, frames = _read(tmp_path / "s.png")
    count = round(config.still_fps * config.still_seconds)
    assert reader.info.estimated_frames == len(frames) == count
    assert [frame.time for frame in frames] == [Fraction(index, config.still_fps) for index in range(count)]
    assert reader.info.duration_s == config.still_seconds
    assert all((frame.image == (9, 99, 199)).all() for frame in frames)
    frames[0].image[:] = 0
    assert (frames[1].image[0, 0] == (9, 99, 199)).all()
    assert len(_read(tmp_path / "s.png", 0.5, 1.0)[1]) == 12


def _refused(path: Path, *cut: float | None) -> str:
    with pytest.raises(InputError) as error:
        open_video(path, *cut)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, clip: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video\n" * 50)
    assert "not a video" in _refused(text)
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip('x.ts')}\n#EXT-X-ENDLIST\n")
    assert "not a video" in _refused(playlist)
    sound = tmp_path / "sound.m4a"
    with av.open(str(sound), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert "no video" in _refused(sound)
    assert "no such file" in _refused(tmp_path / "none.mp4")
    assert "folder" in _refused(tmp_path)
    small = clip("small.mp4", pts=range(3), size=(16, 16))
    assert "16 x 16" in _refused(small)
    whole = clip("whole.mp4").read_bytes()
    (tmp_path / "noindex.mp4").write_bytes(whole[: len(whole) // 2])
    assert "index is missing" in _refused(tmp_path / "noindex.mp4")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_clip_larger_than_the_limit_is_refused_before_decoding(clip: Callable[..., Path]) -> None:
    path = clip("big.mp4", pts=range(2), size=(128, 128))
    with pytest.raises(InputError, match="128 x 128"):
        open_video(path, config=MediaConfig(max_image_pixels=10_000))


def test_times_that_leave_nothing(clip: Callable[..., Path]) -> None:
    path = clip("c.mp4", pts=range(25))
    assert "after its end (1.00 s)" in _refused(path, 5.0)
    assert "after its end" in _refused(path, 1.0)
    assert "after the start" in _refused(path, 0.5, 0.5)
    assert "after the start" in _refused(path, None, 0)
    assert "no frame lies between" in _refused(path, 0.49, 0.5)
    for bad in (-1.0, float("nan"), float("inf")):
        assert "seconds" in _refused(path, bad)


def test_cut_off_stream_yields_what_is_there(clip: Callable[..., Path], video) -> None:
    path = clip("t.ts", pts=range(100), size=(256, 192))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    _, frames = _read(path)
    assert 30 < len(frames) < 100
    assert len(frames) == len(video(path).times)


def _faststart(path: Path) -> Path:
    target = path.with_name("fast.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", container_options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return target


def test_truncated_mp4_is_read_to_where_it_ends_and_reported(clip: Callable[..., Path]) -> None:
    path = _faststart(clip("t.mp4", pts=range(250)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    reader, frames = _read(path)
    assert 25 < len(frames) < 225
    assert all(a.time < b.time for a, b in pairwise(frames))
    assert any("truncated" in line and str(path) in line for line in reader.warnings)
    header = data.find(b"mdat") + 40
    path.write_bytes(data[:header])
    assert "decoded" in _refused(path)


def test_damage_in_the_middle_is_reported_and_survived(clip: Callable[..., Path]) -> None:
    path = clip("d.mp4", pts=range(100), codec="mpeg4")
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat")
    noise = np.random.default_rng(1).integers(0, 255, 600, np.uint8).tobytes()
    data[start + 3000 : start + 3600] = noise
    path.write_bytes(data)
    _, frames = _read(path)
    assert 60 < len(frames) <= 100
    assert all(a.time < b.time for a, b in pairwise(frames))


def test_cover_art_is_not_a_clip(tmp_path: Path) -> None:
    sound, song = tmp_path / "sound.mp3", tmp_path / "song.mp3"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("libmp3lame", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    Image.new("RGB", (64, 64)).save(tmp_path / "cover.png")
    cover = b"\0image/png\0\x03\0" + (tmp_path / "cover.png").read_bytes()
    frame_header = b"APIC" + len(cover).to_bytes(4, "big") + b"\0\0"
    size = len(cover) + 10
    sizes = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    song.write_bytes(b"ID3\x03\0\0" + sizes + frame_header + cover + sound.read_bytes())
    with av.open(str(song)) as check:
        assert len(check.streams.video) == 1  # the library does see an image
    assert "no video" in _refused(song)


def test_names_with_colons_are_files(clip: Callable[..., Path]) -> None:
    _, frames = _read(clip("mp4.mp4", pts=range(3)).rename(clip("y.mp4").with_name("concat:a|b.mp4")))
    assert len(frames) == 3


def test_one_pass_and_closed(clip: Callable[..., Path]) -> None:
    with open_video(clip("a.mp4", pts=range(5))) as reader:
        assert len(list(reader)) == 5
        assert list(reader) == []
    assert list(reader) == []
