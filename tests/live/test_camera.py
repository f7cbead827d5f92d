"""`personalive camera`: a clip drives, a video or a stream comes out, and it ends cleanly."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from personalive.cli.main import main
from personalive.engine.engine import Engine
from support.clips import read_video, write_clip
from support.small_engine import noise_images
from support.small_model import SMALL_SIZE_PX, write_small_model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with weights, portrait.png and clip.mp4."""
    folder, images = tmp_path_factory.mktemp("camera"), noise_images(8, 7)
    write_small_model(folder / "weights")
    Image.fromarray(images[0]).save(folder / "portrait.png")
    write_clip(folder / "clip.mp4", [images[i % 8] for i in range(30)], range(30))
    return folder


@pytest.fixture
def run_here(files: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``run_here(*arguments)``: exit code of the command in this process; the model crops to the centre."""
    monkeypatch.setattr("personalive.live.worker.TINY", str(files / "weights"))

    def run(*arguments: str) -> int:
        model = ["--weights", str(files / "weights"), "--device", "cpu"]
        return main(["camera", str(files / "portrait.png"), *model, *arguments])

    return run


def test_a_clip_drives_a_video_for_so_long(
    files: Path, run_here: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "video.mp4"
    clip = str(files / "clip.mp4")
    assert run_here("--from", clip, "--to", str(target), "--seconds", "3", "--size", "96") == 0
    out = capsys.readouterr().out
    assert "frames" in out
    assert "behind the driver" in out
    video = read_video(target)
    assert video.images.shape[1:] == (96, 96, 3)
    assert 1.5 < float(video.times[-1]) < 9.0
    assert np.abs(video.images[-1].astype(int) - video.images[-6]).max() > 0


def test_ctrl_c_leaves_a_complete_video(files: Path, tmp_path: Path):
    target = tmp_path / "video.mp4"
    code = (
        f"import sys; from personalive.live import worker; worker.TINY = {str(files / 'weights')!r}\n"
        "from personalive.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "camera", str(files / "portrait.png"), "--device", "cpu"]
    command += ["--weights", str(files / "weights"), "--from", str(files / "clip.mp4"), "--to", str(target)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while "per second" not in process.stderr.readline():  # plain progress lines begin when frames do
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "sent" in out
    assert len(read_video(target).images) > 3
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_stream_arrives_at_its_receiver(files: Path, run_here: Callable[..., int]):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    got: list[np.ndarray] = []

    def receive() -> None:
        with av.open(f"tcp://127.0.0.1:{port}?listen=1", format="mpegts", timeout=60) as stream:
            got.extend(frame.to_ndarray(format="rgb24") for frame in stream.decode(video=0))

    receiver = threading.Thread(target=receive)
    receiver.start()
    target = f"tcp://127.0.0.1:{port}"
    assert run_here("--from", str(files / "clip.mp4"), "--to", target, "--seconds", "2", "--mirror") == 0
    receiver.join(60)
    assert len(got) > 8
    assert got[0].shape == (SMALL_SIZE_PX, SMALL_SIZE_PX, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "/nowhere.mp4", "--to", "video.mp4"], "no such file"),
        (["--from", "7", "--to", "video.mp4"], "is the camera there, and free?"),
        (["--from", "CLIP", "--to", "http://localhost/x"], "send to rtmp://"),
        (["--from", "CLIP", "--to", "rtmp://127.0.0.1:9/live/secret"], "is the receiver running"),
        (["--from", "CLIP", "--output-frame", "portrait", "--size", "96"], "at its own size"),
        (["--from", "CLIP", "--to", "video.avi"], "should end in .mp4"),
    ],
)
def test_unusable_arguments_end_in_one_line(
    files: Path,
    run_here: Callable[..., int],
    engine: Engine,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "personalive.live.worker.load_engine_at_once", lambda *_, **__: (engine, None)
    )  # loaded already
    assert run_here(*(str(files / "clip.mp4") if part == "CLIP" else part for part in arguments)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []
