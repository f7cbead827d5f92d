"""A live stream of the model for photographs, with its real networks, on generated people."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.frames import DrivingFrame
from personalive.live.metrics import SessionMetrics
from personalive.live.stream import LiveStream
from personalive.media.still import load_still
from personalive.runtime.face import load_face_engine
from personalive.vision.resize import shrink_to

SHEET = Path(__file__).parents[2] / "docs" / "images" / "photo.jpg"


def cell(row: int, column: int) -> np.ndarray:
    y, x = row * 232, column * 232
    return np.ascontiguousarray(load_still(SHEET)[y : y + 232, x : x + 232])


def test_a_camera_drives_a_photograph_without_frames_in_flight():
    engine = load_face_engine()
    stream = LiveStream(engine, center_fallback=False, clock=time.monotonic, config=LiveConfig())
    stream.set_portrait(cell(2, 4), LiveControls())
    made, metrics = [], SessionMetrics(LiveConfig())
    for step, column in enumerate((3, 1, 2)):
        frames = [
            DrivingFrame(4 * step + n, 40_000 * (4 * step + n), time.monotonic(), lambda c=column: cell(0, c))
            for n in range(1, 5)
        ]
        finished = stream.step(frames, LiveControls(keyframe_threshold=5.0), neutral=False)
        assert len(finished) == engine.chunk_frames
        metrics.add_finished(finished)
        made.append(finished[-1].image)
    latency = metrics.to_dict(time.monotonic(), engine.chunk_frames, 0)["latency_ms"]
    assert latency["window"]["p50"] == 0.0
    assert latency["compute"]["p50"] > 0
    jaws = []
    for image in made:
        reading = engine.reader.read(image)
        assert reading is not None
        jaws.append(reading.blendshape("jawOpen"))
    assert jaws[2] > 0.3 > 2 * max(jaws[:2])

    whole = np.pad(cell(2, 4), [(0, 0), (1200, 0), (0, 0)], mode="edge")
    controls = LiveControls(output_frame="portrait")
    stream.set_portrait(whole, controls)
    frames = [DrivingFrame(20, 900_000, time.monotonic(), lambda: cell(0, 2))]
    shown = stream.step(frames, controls, neutral=False)[-1].image
    photograph = shrink_to(whole, LiveConfig().photograph_side_px)[: shown.shape[0]]
    assert shown.shape[1::-1] == stream.frame_size_px(controls) == (1280, photograph.shape[0])
    differs = (shown != photograph).any(axis=(0, 2))
    face = differs.size - photograph.shape[0]  # where the padding ends
    assert differs[face:].mean() > 0.5
    assert not differs[: face - photograph.shape[0] // 2].any()
