"""Clips, sound and images decoded in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from personalive.errors import InputError
from personalive.media.audio import AudioCut, SoundReader
from personalive.media.config import MediaConfig
from personalive.media.isolated import load_isolated_still, open_isolated_video
from personalive.media.reader import open_video
from personalive.media.still import load_still
from personalive.media.worker import Worker
from personalive.media.writer import VideoWriter
from support.channel_orders import write_custom_order
from support.processes import children, open_descriptors

pytestmark = pytest.mark.isolated


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every descriptor and every process is let go of; what others left may end meanwhile."""
    descriptors, before = open_descriptors(), children()
    yield
    assert open_descriptors() <= descriptors
    assert children() <= before


def _write(source: Path, target: Path, open_clip: Callable) -> bytes:
    with open_clip(source, 0.2) as reader:
        info = reader.info
        with VideoWriter(target, info.width, info.height, time_base=info.time_base, audio_from=reader.audio) as out:
            for frame in reader:
                out.write(frame.image, frame.time, frame.duration)
        assert [*reader.warnings, *out.warnings] == []
    return target.read_bytes()


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("m.mkv", "libmp3lame"), ("p.mov", "pcm_s16le")])
def test_a_video_and_its_sound_are_the_same_byte_for_byte(
    tmp_path: Path, clip: Callable[..., Path], name: str, codec: str
) -> None:
    source = clip(name, audio=codec)
    expected = _write(source, tmp_path / "here.mp4", open_video)
    assert _write(source, tmp_path / "there.mp4", open_isolated_video) == expected


@pytest.mark.parametrize(("background", "nicer"), [(True, 5), (False, 0)])
def test_a_decoder_in_the_background_gives_way_to_its_parent(
    clip: Callable[..., Path], background: bool, nicer: int
) -> None:
    """In the parent's session, since Linux weighs processes of two sessions by session, whatever their niceness."""
    task, path = "personalive.media.feed:send_sound", clip("a.mp4", audio="aac")
    with Worker(task, path, MediaConfig(), None, background=background, start="0", end=None) as worker:
        worker.receive()  # it runs
        pid = worker._process.pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + nicer
        assert os.getsid(pid) == os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C is for the parent


def test_a_clip_is_read_again_from_any_place_in_the_same_process(clip: Callable[..., Path]) -> None:
    with open_isolated_video(clip("a.mp4")) as reader:
        process = reader._worker._process.pid
        first = [frame.image for frame in reader]
        for taken in (0, 1, 9, 25):
            reader.rewind()
            for _ in range(taken):
                next(reader)
        reader.rewind()
        again = [frame.image for frame in reader]
        assert reader._worker._process.pid == process
    assert len(first) == 25
    assert np.array_equal(first, again)


def test_an_image_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(path)
    assert np.array_equal(load_isolated_still(path), load_still(path))


def test_refusals_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all, but long enough to be looked at")
    for isolated, here in ((open_isolated_video, open_video), (load_isolated_still, load_still)):
        with pytest.raises(InputError) as expected:
            here(path)
        with pytest.raises(InputError) as found:
            isolated(path)
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("ending", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_decoder_that_dies_is_one_line(clip: Callable[..., Path], ending: signal.Signals) -> None:
    with open_isolated_video(clip("a.mp4")) as reader:
        next(reader)
        os.kill(reader._worker._process.pid, ending)
        with pytest.raises(InputError, match=rf"a\.mp4: the decoder ends in {ending.name} .*ffmpeg -i a\.mp4"):
            list(reader)


def test_a_decoder_that_hangs_is_ended_by_its_own_clock(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4000, 4000)).save(path)
    for load in (open_isolated_video, load_isolated_still):
        with pytest.raises(InputError, match=r"a\.png: a frame of it took more than 0\.005 s"):
            load(path, config=MediaConfig(decoder_frame_s=0.005))


def test_a_reader_that_is_slow_itself_does_not_end_the_decoder(clip: Callable[..., Path]) -> None:
    with open_isolated_video(clip("a.mp4"), config=MediaConfig(decoder_frame_s=1.0)) as reader:
        process = reader._worker._process
        with pytest.raises(TimeoutError):
            _wait(process, 1.5)
        assert len(list(reader)) == 25


def _wait(process, seconds: float) -> None:
    import subprocess

    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


def test_a_decoder_that_wants_too_much_memory_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8000, 8000)).save(path)
    with pytest.raises(InputError, match=r"a\.png: (wants more than 0\.1 GB|is damaged)") as refused:
        load_isolated_still(path, MediaConfig(decoder_memory_bytes=100_000_000))
    assert "\n" not in str(refused.value)


def test_sound_whose_decoder_dies_ends_and_the_video_goes_on(clip: Callable[..., Path], tmp_path: Path) -> None:
    with open_isolated_video(clip("p.mov", audio="pcm_s16le", seconds=20.0, pts=range(500))) as reader:
        info = reader.info
        out = VideoWriter(tmp_path / "o.mp4", info.width, info.height, fps=info.average_fps, audio_from=reader.audio)
        with out:
            for number, frame in enumerate(reader):
                out.write(frame.image, frame.time, frame.duration)
                if number == 10:
                    os.kill(out._audio._sound._worker._process.pid, signal.SIGSEGV)
    assert len(out.warnings) == 1
    assert "SIGSEGV" in out.warnings[0]
    with av.open(str(out.path)) as made:
        assert sum(1 for _ in made.decode(video=0)) == 500


# --- channels in an order of their own, which PyAV frees twice ------------------------------------------------------


def _loudest(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize(
    "channels",
    [
        {"FL": 400, "FR": 700, "FC": 0, "LFE": 0, "SL": 0, "SR": 0, "BL": 0, "BR": 0},  # 7.1 as QuickTime orders it
        {"FR": 700, "FL": 400},  # left and right exchanged
        {"BC": 0, "FC": 0, "FR": 700, "FL": 400},  # everything exchanged
    ],
    ids=["7.1", "exchanged stereo", "reversed 4.0"],
)
def test_channels_in_an_order_of_their_own_are_heard_where_they_belong(tmp_path: Path, channels: dict) -> None:
    source = write_custom_order(tmp_path / "a.mov", channels)
    out = tmp_path / "o.mp4"
    with open_isolated_video(source) as reader, VideoWriter(out, 64, 48, audio_from=reader.audio) as writer:
        for frame in reader:
            writer.write(frame.image, frame.time, frame.duration)
    assert writer.warnings == []
    with av.open(str(out)) as made:
        sound = np.concatenate([frame.to_ndarray() for frame in made.decode(audio=0)], axis=1)
    assert sound.shape[1] >= 23_000
    left, right = (_loudest(channel[4_000:20_000], 48_000) for channel in sound)
    assert left == pytest.approx(400, abs=5)
    assert right == pytest.approx(700, abs=5)


def test_sound_with_more_channels_than_any_layout_has(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    header = b"RIFF" + (36 + 9600 * 18).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += b"".join(n.to_bytes(2, "little") for n in (1, 9)) + (48_000).to_bytes(4, "little")
    header += (48_000 * 18).to_bytes(4, "little") + b"".join(n.to_bytes(2, "little") for n in (18, 16))
    path.write_bytes(header + b"data" + (9600 * 18).to_bytes(4, "little") + bytes(9600 * 18))
    sound = SoundReader(AudioCut(path, Fraction(0)), MediaConfig())
    with av.open(str(tmp_path / "o.mp4"), "w") as out:
        sound.add_to(out)
        assert sum(1 for _ in sound.packets()) >= 9
    sound.close()
    assert sound.warnings == []
