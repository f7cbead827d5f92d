"""The virtual camera, with a stand-in for the package that speaks to it: no test machine has the device."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from personalive.errors import DeviceError
from personalive.live.sinks import VIRTUAL, open_sink


class FakeCamera:
    """Camera that keeps the frames it is sent."""

    made: FakeCamera

    def __init__(self, width: int, height: int, fps: float) -> None:
        self.size, self.device, self.sent, self.open = (width, height), "fake0", [], True
        FakeCamera.made = self

    def send(self, frame: np.ndarray) -> None:
        assert frame.flags.c_contiguous
        assert frame.shape == (*self.size, 3)
        self.sent.append(frame)

    def close(self) -> None:
        self.open = False


def test_frames_reach_the_virtual_camera_upright_and_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=FakeCamera))
    sink = open_sink(VIRTUAL, (96, 96))
    frame = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    sink.send(frame[::-1][::-1], 0.0)
    sink.close()
    assert np.array_equal(FakeCamera.made.sent[0], frame)
    assert not FakeCamera.made.open


def test_without_the_package_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(DeviceError, match=r'pip install "personalive\[camera\]"'):
        open_sink(VIRTUAL, (96, 96))


def test_without_a_device_the_line_says_what_to_load(monkeypatch: pytest.MonkeyPatch):
    def none(*_: object) -> None:
        raise RuntimeError("no loopback\ndevice")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=none))
    with pytest.raises(DeviceError, match=r"no virtual camera here .no loopback device.: on Linux load v4l2loopback"):
        open_sink(VIRTUAL, (96, 96))
