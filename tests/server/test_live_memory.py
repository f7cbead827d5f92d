"""Device memory that runs out under the live server: the message, who gets it, and who goes on."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from personalive.cli.main import main
from personalive.engine.backend import Backend
from support.clips import write_clip
from support.live_checks import check_error, expect_error, generous, turned
from support.live_server import running
from support.small_model import write_small_model

LINE = "cpu: not enough memory for this model: use --vram 12 or --dtype bfloat16"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], threading.Event]:
    """``short("denoise")``: while the event is set, that call finds no memory."""

    def arm(name: str) -> threading.Event:
        real, armed = getattr(Backend, name), threading.Event()

        def call(*args: Any, **named: Any) -> Any:
            if armed.is_set():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 168.00 MiB")
            return real(*args, **named)

        monkeypatch.setattr(Backend, name, call)
        return armed

    return arm


@pytest.mark.parametrize("name", ["project", "denoise", "decode"])
def test_lack_of_memory_before_the_first_session_is_the_workers_message(engine, short, name):
    short(name).set()
    with running(lambda: engine, server=generous()) as server:
        status = server.http.get("/api/status").json()
        assert (status["state"], status["message"]) == ("failed", LINE)
        assert LINE in expect_error(server.http.post("/api/sessions", json={}), "not_ready", 503)


@pytest.mark.parametrize("name", ["denoise", "decode"])
def test_a_session_for_which_there_is_no_memory_ends_with_the_line_and_others_go_on(engine, images, short, name):
    armed = short(name)
    with running(lambda: engine, server=generous()) as server:
        clients = [server.open() for _ in range(2)]
        for client, image in zip(clients, images[:2], strict=True):
            client.put_portrait(image).raise_for_status()
        other, socket = (client.connect() for client in clients)
        camera: Iterator[np.ndarray] = itertools.cycle(turned(images[2], 7))
        armed.set()
        socket.send_frame(next(camera))
        socket.receive_until(lambda: socket.message("ended"))
        armed.clear()
        assert socket.message("ended") == {"type": "ended", "reason": LINE}
        other.drive(camera, 20)
        status = server.http.get("/api/status").json()
        assert (status["state"], status["message"]) == ("ready", LINE)


def test_a_portrait_for_which_there_is_no_memory_leaves_the_one_before(engine, images, short):
    armed = short("project")
    with running(lambda: engine, server=generous()) as server:
        client = server.open()
        client.put_portrait(images[0]).raise_for_status()
        armed.set()
        answer = client.put_portrait(images[1])
        armed.clear()
        assert expect_error(answer, "internal", 500) == LINE
        check_error(answer.json(), "internal")
        assert client.request("GET").json()["generation"] == 1
        client.connect().drive(itertools.cycle(turned(images[2], 7)), 8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Path:
    """Folder with weights, portrait.png and clip.mp4."""
    folder = tmp_path_factory.mktemp("camera")
    write_small_model(folder / "weights")
    Image.fromarray(images[0]).save(folder / "portrait.png")
    write_clip(folder / "clip.mp4", list(images), range(8))
    return folder


def camera(files: Path, target: Path, *options: str) -> int:
    """Exit code of ``personalive camera`` with these files."""
    driver = ("--from", str(files / "clip.mp4"), "--to", str(target), "--weights", str(files / "weights"))
    return main(["camera", str(files / "portrait.png"), *driver, "--device", "cpu", *options])


@pytest.mark.parametrize("name", ["loading", "encode", "denoise", "decode"])
def test_a_camera_ends_in_one_line(
    name: str,
    files: Path,
    short: Callable[[str], threading.Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("personalive.live.worker.TINY", str(files / "weights"))  # a model of synthetic heads
    if name == "loading":
        monkeypatch.setattr("personalive.runtime.load.load_networks", _without_memory)
    else:
        short(name).set()
    target = tmp_path / "video.mp4"
    assert camera(files, target, "--seconds", "5", "--dtype", "bfloat16", "--vram", "12") == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == ["error: cpu: not enough memory for this model: use --vram 8"]
    assert not target.exists()


def test_a_camera_that_finds_no_memory_later_ends_in_the_same_line(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """After it was ready: the video written so far is complete."""
    monkeypatch.setattr("personalive.live.worker.TINY", str(files / "weights"))
    decode, calls = Backend.decode, itertools.count()

    def call(*args: Any) -> Any:
        return _without_memory() if next(calls) > 30 else decode(*args)

    monkeypatch.setattr(Backend, "decode", call)
    assert camera(files, tmp_path / "video.mp4", "--dtype", "float32", "--vram", "8") == 1
    *progress, last = capfd.readouterr().err.splitlines()
    assert all(line.startswith("live: ") for line in progress)
    assert last == "error: cpu: not enough memory for this model: use --dtype bfloat16 or --weights tiny"
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def _without_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 168.00 MiB")
