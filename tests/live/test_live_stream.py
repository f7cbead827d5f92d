"""Live stream of a diffusion model, on its own: what is done to its driver's motion."""

from __future__ import annotations

import time
from itertools import islice

import numpy as np
import pytest
import torch

from personalive.engine.engine import Engine
from personalive.engine.state import Motion
from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.frames import DrivingFrame
from personalive.live.stream import LiveStream, frame_live_portrait
from personalive.vision.faces import find_detector
from personalive.vision.keypoints import HeadPose
from personalive.vision.one_euro import calm_poses
from support.live_checks import turned
from support.studio import MakeImages


def test_a_drivers_head_is_calmed_and_anew_with_another_driver(
    engine: Engine, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[HeadPose] = []

    def encode(frames: np.ndarray) -> Motion:
        motion = Engine.encode_motion(engine, frames)
        encoded.append(motion.poses)
        return motion

    monkeypatch.setattr(engine, "encode_motion", encode)
    stream = LiveStream(engine, center_fallback=True, clock=time.monotonic, config=LiveConfig())
    stream.set_portrait(make_images(1, 1)[0], LiveControls())
    images = list(islice(turned(make_images(1, 7)[0], 8), 8))
    for _ in range(2):  # drivers
        stream.change_driver()
        encoded.clear()
        for chunk in range(2):
            numbers = range(4 * chunk, 4 * chunk + 4)
            frames = [DrivingFrame(n + 1, 40_000 * (n + 1), 0.0, lambda n=n: images[n]) for n in numbers]
            stream.step(frames, LiveControls(), neutral=False)
        read = HeadPose.cat(encoded)
        calm, _ = calm_poses(read, None)
        assert stream._last is not None
        newest = stream._last.motion.poses
        assert torch.equal(newest.yaw, calm[-1].yaw) and torch.equal(newest.scale, calm[-1].scale)
        assert not torch.allclose(newest.yaw, read[-1].yaw)
        assert torch.equal(newest.kp, read[-1].kp)


def test_a_portrait_that_was_framed_elsewhere_begins_the_same_stream(engine: Engine, make_images: MakeImages):
    def first(framed: bool) -> np.ndarray:
        stream = LiveStream(engine, center_fallback=True, clock=lambda: 0.0, config=LiveConfig())
        photograph = np.pad(make_images(1, 1)[0], ((0, 24), (0, 0), (0, 0)))
        detector = find_detector(engine.folder)
        elsewhere = frame_live_portrait(engine, photograph, detector, center_fallback=True) if framed else None
        note = stream.set_portrait(photograph, LiveControls(), elsewhere)
        assert "no face" in note
        frames = [DrivingFrame(n + 1, 40_000 * (n + 1), 0.0, lambda: make_images(1, 7)[0]) for n in range(4)]
        return np.stack([frame.image for frame in stream.step(frames, LiveControls(steps=1), neutral=False)])

    np.testing.assert_array_equal(first(framed=True), first(framed=False))
