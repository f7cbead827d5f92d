"""Videos: exact times, right colours, sound in sync, whole or clearly partial."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from time import sleep

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personalive.errors import OutputError
from personalive.media.audio import AudioCut
from personalive.media.reader import open_video
from personalive.media.writer import VideoWriter

SIZE = (64, 48)


def _copy(source: Path, target: Path, start: float | None = None, end: float | None = None) -> VideoWriter:
    """The loop every caller runs, with an inference that changes nothing."""
    with open_video(source, start, end) as reader:
        info = reader.info
        with VideoWriter(
            target, *SIZE, time_base=info.time_base, fps=info.average_fps, audio_from=reader.audio
        ) as writer:
            for frame in reader:
                writer.write(frame.image, frame.time, frame.duration)
    return writer


@pytest.mark.parametrize("step", [Fraction(1, 25), Fraction(1001, 30000), Fraction(1, 30), Fraction(1, 60)])
def test_times_are_carried_through_exactly(clip: Callable[..., Path], video, step: Fraction) -> None:
    pts = [index * step.numerator for index in range(60)]
    source = clip("in.mp4", pts=pts, time_base=Fraction(1, step.denominator))
    writer = _copy(source, source.with_name("out.mp4"))
    out = video(writer.path)
    assert out.times == video(source).times == [index * step for index in range(60)]
    assert out.end == 60 * step
    assert writer.frames_written == 60


def test_variable_rate_and_last_duration(clip: Callable[..., Path], video, image) -> None:
    pts = [0, 33, 34, 100, 700, 1900, 1933]
    source = clip("in.mkv", pts=pts, time_base=Fraction(1, 1000))
    out = video(_copy(source, source.with_name("out.mp4")).path)
    assert out.times == [Fraction(tick, 1000) for tick in pts]
    assert out.times[-1] < out.end <= out.times[-1] + Fraction(1, 10)
    for index, shown in enumerate(out.images):
        assert np.abs(shown[40, 60].astype(int) - image(index)[40, 60]).max() <= 6


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    base=st.sampled_from([Fraction(1, 1000), Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 600)]),
    last=st.integers(1, 3000),
)
def test_any_times_come_back(tmp_path: Path, video, gaps: list[int], base: Fraction, last: int) -> None:
    times = [Fraction(0)]
    for gap in gaps:
        times.append(times[-1] + gap * base)
    with VideoWriter(tmp_path / "t.mp4", *SIZE, time_base=base, fps=Fraction(30)) as writer:
        for time in times:
            writer.write(np.zeros((48, 64, 3), np.uint8), time, last * base)
    out = video(writer.path)
    assert out.times == times
    assert out.end == times[-1] + last * base


def test_times_off_the_grid_are_rounded(tmp_path: Path, video) -> None:
    with VideoWriter(tmp_path / "r.mp4", *SIZE) as writer:
        for index in range(10):
            writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(index, 7))
    for index, time in enumerate(video(writer.path).times):
        assert abs(time - Fraction(index, 7)) <= Fraction(1, 180_000)


def _boxes(path: Path) -> list[str]:
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def test_format_and_colour(tmp_path: Path, video) -> None:
    """Flat colours have the luma and chroma that BT.709 limited range defines, and come back."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (224, 172, 105)]
    with VideoWriter(tmp_path / "c.mp4", *SIZE, crf=1) as writer:
        for index, colour in enumerate(colours):
            writer.write(np.full((48, 64, 3), colour, np.uint8), Fraction(index, 25))
    out = video(writer.path)
    assert out.pix_fmt == "yuv420p"
    assert out.tags == (1, 1, 1, 1)
    boxes = _boxes(writer.path)
    assert boxes.index("moov") < boxes.index("mdat")
    with av.open(str(writer.path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        for frame, colour in zip(container.decode(video=0), colours, strict=True):
            red, green, blue = (value / 255 for value in colour)
            luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
            expected = (
                16 + 219 * luma,
                128 + 224 * (blue - luma) / 1.8556,
                128 + 224 * (red - luma) / 1.5748,
            )
            planes = frame.to_ndarray()
            found = (planes[24, 32], planes[48 + 6, 8], planes[48 + 12 + 6, 8])
            assert np.abs(np.subtract(found, expected)).max() <= 2
    with open_video(writer.path) as reader:
        for frame, colour in zip(reader, colours, strict=True):
            assert np.abs(frame.image[24, 32].astype(int) - colour).max() <= 5


_SOUNDS = [
    ("a.mp4", "aac", "aac"),
    ("a.mkv", "aac", "aac"),
    ("a.ts", "aac", "aac"),
    ("m.mp4", "libmp3lame", "mp3float"),
    ("m.mkv", "libmp3lame", "mp3float"),
    ("ac3.mkv", "ac3", "aac"),
    ("eac3.mp4", "eac3", "aac"),
    ("alac.mp4", "alac", "aac"),
    ("o.mkv", "libopus", "aac"),
    ("p.mkv", "pcm_s16le", "aac"),
    ("f.mkv", "flac", "aac"),
    ("p.mov", "pcm_s16le", "aac"),
]


@pytest.mark.parametrize("sound", _SOUNDS)
@pytest.mark.parametrize(("cut", "fps"), [((None, None), 60), ((0.4, None), 25), ((0.4, 0.9), 60)])
def test_sound_stays_in_sync_and_ends_with_the_cut(
    clip: Callable[..., Path], video, sound: tuple[str, str, str], cut: tuple, fps: int
) -> None:
    name, codec, expected = sound
    encoder = "libvpx" if name.endswith("webm") else "libx264"
    options = {"pts": range(6 * fps // 5), "time_base": Fraction(1, fps), "codec": encoder}
    source = clip(name, **options, audio=codec, rate=48_000, seconds=1.2, beep_s=0.6)
    writer = _copy(source, source.with_name("out.mp4"), *cut)
    before, out = video(source), video(writer.path)
    assert out.audio_codec == expected
    assert writer.warnings == []
    first = next(i for i, t in enumerate(before.times) if t - before.times[0] >= Fraction(str(cut[0] or 0)))
    shift = float(before.times[first])  # the image that is at second 0 of the video
    assert abs(out.beep_s() - (before.beep_s() - shift)) < 0.002
    end = float(before.audio_end) if cut[1] is None else cut[1] + float(before.times[0])
    assert abs(float(out.audio_end) - (end - shift)) <= max(1 / fps, 0.0171)


def test_webm(clip: Callable[..., Path], video) -> None:
    source = clip("o.webm", pts=range(20), codec="libvpx", audio="libopus", seconds=0.8, beep_s=0.4)
    out = video(_copy(source, source.with_name("out.mp4")).path)
    assert out.times == [Fraction(index, 25) for index in range(20)]
    assert abs(out.beep_s() - 0.4) < 0.002


def test_copied_sound_is_bit_exact(clip: Callable[..., Path]) -> None:
    source = clip("a.mp4", pts=range(50), audio="aac", seconds=2.0)
    writer = _copy(source, source.with_name("out.mp4"))

    def packets(path: Path) -> list[tuple[Fraction, bytes]]:
        with av.open(str(path)) as container:
            found = container.demux(audio=0)
            return [(p.pts * p.time_base, bytes(p)) for p in found if p.pts is not None]

    assert packets(writer.path) == packets(source)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16_000, 1), (22_050, 2), (44_100, 1), (96_000, 2)])
def test_other_sample_rates_are_encoded_in_sync(clip: Callable[..., Path], video, rate: int, channels: int) -> None:
    source = clip("r.mkv", pts=range(50), audio="pcm_s16le", rate=rate, channels=channels, seconds=2.0, beep_s=1.2)
    out = video(_copy(source, source.with_name("out.mp4"), 0.4, 1.8).path)
    assert out.sample_rate in (44_100, 48_000)
    assert abs(out.beep_s() - 0.8) < 0.002
    assert abs(float(out.audio_end) - 1.4) <= 1 / 25


@pytest.mark.parametrize(("name", "codec"), [("late.mkv", "pcm_s16le"), ("late.mp4", "aac")])
def test_sound_that_begins_late_or_has_a_gap_keeps_its_place(
    clip: Callable[..., Path], video, name: str, codec: str
) -> None:
    source = clip(name, pts=range(50), audio=codec, seconds=1.0, beep_s=0.5, audio_offset_s=0.6, rate=48_000)
    out = video(_copy(source, source.with_name("out.mp4")).path)
    assert abs(out.beep_s() - 1.1) < 0.003
    cut = video(_copy(source, source.with_name("cut.mp4"), 0.2, 1.4).path)
    assert abs(cut.beep_s() - 0.9) < 0.003
    assert abs(float(cut.audio_end) - 1.2) <= 1 / 25


def test_silence_fills_a_hole_in_the_sound(clip: Callable[..., Path], video, tmp_path: Path) -> None:
    """Packets taken out of a source must not pull later sound forward."""
    source = clip("whole.mkv", pts=range(50), audio="pcm_s16le", seconds=2.0, beep_s=1.5)
    holed = tmp_path / "holed.mkv"
    with av.open(str(source)) as whole, av.open(str(holed), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in whole.streams}
        for packet in whole.demux():
            if not packet.size:  # the mark of the end
                continue
            in_hole = 0.5 < packet.pts * packet.time_base < 1.0
            if packet.stream.type == "audio" and in_hole:
                continue
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    result = video(_copy(holed, tmp_path / "out.mp4").path)
    assert abs(result.beep_s() - 1.5) < 0.005


def test_interrupted_sound_ends_with_the_images(clip: Callable[..., Path], video) -> None:
    source = clip("a.mp4", pts=range(100), audio="aac", seconds=4.0)
    with open_video(source) as reader:
        writer = VideoWriter(
            source.with_name("out.mp4"), *SIZE, time_base=reader.info.time_base, audio_from=reader.audio
        )
        for frame in reader:
            if frame.time >= 1:
                break
            writer.write(frame.image, frame.time)
        partial = writer.close_partial()
    assert partial is not None
    out = video(partial)
    assert len(out.times) == 25
    assert abs(float(out.audio_end) - 1.0) <= 0.04


def test_interrupted_sound_lasts_as_long_as_the_last_image(clip: Callable[..., Path], video, image) -> None:
    source = clip("a.mp4", pts=range(100), audio="aac", seconds=4.0)
    with open_video(source) as reader:
        writer = VideoWriter(source.with_name("out.mp4"), *SIZE, audio_from=reader.audio)
        writer.write(image(0), Fraction(0), Fraction(1, 25))
        writer.write(image(1), Fraction(1, 25), Fraction(1))
        partial = writer.close_partial()
    assert partial is not None
    assert abs(float(video(partial).audio_end) - 1.04) <= 0.04


def test_an_exception_leaves_a_playable_partial_video(tmp_path: Path, video, image) -> None:
    (tmp_path / "out.mp4").write_bytes(b"yesterday's video")
    with pytest.raises(KeyboardInterrupt) as caught, VideoWriter(tmp_path / "out.mp4", *SIZE) as writer:
        for index in range(37):
            writer.write(image(index), Fraction(index, 25))
        raise KeyboardInterrupt
    assert writer.partial_path == tmp_path / "out.partial.mp4"
    assert any(str(writer.partial_path) in note and "37" in note for note in caught.value.__notes__)
    out = video(writer.partial_path)
    assert out.times == [Fraction(index, 25) for index in range(37)]
    for index, shown in enumerate(out.images):
        assert np.abs(shown[40, 60].astype(int) - image(index)[40, 60]).max() <= 6
    assert (tmp_path / "out.mp4").read_bytes() == b"yesterday's video"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "out.partial.mp4"]


def test_an_interruption_between_a_frame_and_its_count_is_told_rightly(tmp_path: Path, video, image) -> None:
    class Interrupted(VideoWriter):
        def _mux(self, frame: av.VideoFrame | None) -> None:
            super()._mux(frame)
            if frame is not None and frame.pts == 36 * 3600:
                raise KeyboardInterrupt

    writer = Interrupted(tmp_path / "out.mp4", *SIZE, time_base=Fraction(1, 90_000))
    with pytest.raises(KeyboardInterrupt) as caught, writer:
        for index in range(50):
            writer.write(image(index), Fraction(index, 25))
    assert caught.value.__notes__ == [f"The first 37 frames were kept in {writer.partial_path}"]
    assert len(video(writer.partial_path).times) == writer.frames_written == 37


@pytest.mark.parametrize("after", [1, 10, 11, 12, 25])  # x264 gives its first packet at about frame 12
def test_a_real_ctrl_c_at_any_moment_loses_no_frame(tmp_path: Path, video, after: int) -> None:
    """The signal lands wherever the writer happens to be; what it counted is what the video holds."""
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    written = 0
    main = threading.get_ident()

    def strike() -> None:
        """As soon as enough is written, when the main thread is inside the encoder; on a busy machine, wherever."""
        while written < after or (written < after + 200 and sys._current_frames()[main].f_code.co_name != "_mux"):
            sleep(0.0002)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=strike)
    thread.start()
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 320, 240) as writer:
        while written < 100_000:
            writer.write(np.roll(image, written, 1), Fraction(written, 25))
            written += 1
    thread.join()
    assert writer.partial_path is not None
    out = video(writer.partial_path)
    # The interruption may fall between encoding a frame and counting it.
    assert written <= len(out.times) <= written + 1
    assert out.times == [Fraction(index, 25) for index in range(len(out.times))]


def test_second_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", *SIZE) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(0))
        monkeypatch.setattr(writer, "_finish", again)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_no_frames_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no frame"), VideoWriter(tmp_path / "a.mp4", *SIZE):
        pass
    with pytest.raises(RuntimeError, match="early"), VideoWriter(tmp_path / "a.mp4", *SIZE):
        raise RuntimeError("early")
    writer = VideoWriter(tmp_path / "a.mp4", *SIZE)
    assert writer.close_partial() is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    writer = VideoWriter(tmp_path / "a.mp4", *SIZE)
    assert full.is_char_device()
    writer._temporary.symlink_to(full)  # every write through it fails as on a full disk
    with pytest.raises(OutputError) as caught, writer:
        for index in range(2000):
            noise = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
            writer.write(noise, Fraction(index, 25))
    assert "\n" not in str(caught.value)
    assert "a.mp4" in str(caught.value)
    assert "space" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_refusals_before_any_work(tmp_path: Path, clip: Callable[..., Path]) -> None:
    source = clip("in.mp4", pts=range(3), audio="aac")
    with pytest.raises(OutputError, match="even"):
        VideoWriter(tmp_path / "o.mp4", 63, 48)
    with pytest.raises(OutputError, match="input"):
        VideoWriter(source, *SIZE, inputs=[source])
    with pytest.raises(OutputError, match="input"):
        VideoWriter(source, *SIZE, audio_from=AudioCut(source, Fraction(0)))
    with pytest.raises(OutputError, match="create it"):
        VideoWriter(tmp_path / "none" / "o.mp4", *SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_wrong_frames_are_programming_errors(tmp_path: Path) -> None:
    good = np.zeros((48, 64, 3), np.uint8)
    writer = VideoWriter(tmp_path / "o.mp4", *SIZE)
    for bad in (good[:40], good.astype(np.float32), good[..., 0]):
        with pytest.raises(ValueError, match="expected uint8"):
            writer.write(bad, Fraction(0))
    writer.write(good, Fraction(1))
    for time in (Fraction(1), Fraction(1, 2)):
        with pytest.raises(ValueError, match="cannot follow"):
            writer.write(good, time)
    assert writer.close() == tmp_path / "o.mp4"
    assert writer.close() == tmp_path / "o.mp4"
    with pytest.raises(ValueError, match="cannot follow"):
        writer.write(good, Fraction(2))


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_does_not_grow_with_length(clip: Callable[..., Path]) -> None:
    """2,000 frames that would take 115 MB if kept, without help from the garbage collector."""
    turned = (0, 65536, 0, -65536, 0, 0, 0, 0, 2**30)
    source = clip(
        "long.mp4", pts=range(2000), size=(160, 120), codec="mpeg4", matrix=turned, audio="aac", seconds=20.0
    )
    gc.collect()
    gc.disable()
    try:
        with open_video(source) as reader:
            info = reader.info
            out = source.with_name("out.mp4")
            with VideoWriter(
                out, info.width, info.height, time_base=info.time_base, audio_from=reader.audio
            ) as writer:
                warm = 0.0
                for frame in reader:
                    writer.write(frame.image, frame.time, frame.duration)
                    warm = _resident_mb() if writer.frames_written == 200 else warm
        assert writer.frames_written == 2000
        assert _resident_mb() - warm < 25
    finally:
        gc.enable()
