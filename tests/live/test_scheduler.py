"""Scheduling of sessions on a worker, with fake streams and a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from personalive.engine.base import BaseEngine
from personalive.errors import DeviceError
from personalive.live import scheduler as module
from personalive.live.config import LiveConfig
from personalive.live.frames import DrivingFrame, FinishedFrame, FinishedHeader, StageTimes
from personalive.live.scheduler import Scheduler
from personalive.live.session import Session

CHUNK, STEP_S = 4, 0.05


class FakeClock:
    """Clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeStream:
    """Stream with a portrait, whose calls take ``STEP_S`` and record how many driving frames they got."""

    ready, started, keyframes, generation, index = True, False, 0, 1, 0
    face, recording, image, warmup_frames = None, False, None, 12

    def __init__(self, engine: Any, *, clock: FakeClock, **named: Any) -> None:
        self._clock = clock
        self.taken: list[int] = []

    def step(self, frames: list[DrivingFrame], controls: Any, *, neutral: bool) -> list[FinishedFrame]:
        self._clock.now += STEP_S
        self.taken.append(len(frames))
        self.started = True
        header = FinishedHeader(1, 1, 1, 0, StageTimes(0.0, 1.0, 1.0, 0.0))
        return [FinishedFrame(header, np.zeros((1, 1, 3), np.uint8), self._clock.now, 0.0)] * CHUNK


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """``serve(count, test, **config)``: ``test(scheduler, clock, sessions)`` with so many sessions."""
    engine: Any = SimpleNamespace(
        image_size=8,
        chunk_frames=CHUNK,
        max_steps=3,
        live_steps=2,
        folder=None,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    engine.started = []  # the denoising steps of each start
    engine.start = lambda portrait, steps: engine.started.append(steps)
    engine.step = lambda state, window: (None, None)
    engine.warm_up = lambda calls, clock, **named: BaseEngine.warm_up(engine, calls, clock, **named)
    monkeypatch.setattr(module, "LiveStream", FakeStream)
    monkeypatch.setattr("personalive.live.scheduler.engine_oom_errors", lambda engine: nullcontext())

    def run(count: int, test: Callable[..., Any], **config: Any) -> Any:
        async def inside() -> Any:
            clock, live = FakeClock(), LiveConfig(**config)
            scheduler = Scheduler(live, clock, center_fallback=True, on_oom=pytest.fail)
            scheduler.begin(engine)
            loop = asyncio.get_running_loop()
            sessions = [Session(folder=tmp_path, loop=loop, clock=clock, config=live) for _ in range(count)]
            for session in sessions:
                scheduler.add(session)
            return test(scheduler, clock, sessions)

        return asyncio.run(inside())

    return run


def chunks(scheduler: Scheduler, session: Session) -> list[int]:
    """Driving frames in each chunk of a session so far."""
    return next(slot.stream.taken for slot in scheduler._slots if slot.session is session)


def push(session: Session, now: float) -> None:
    session.push(DrivingFrame(1, int(1e6 * now), now, lambda: np.zeros((8, 8, 3), np.uint8)), "camera")


def test_other_numbers_of_steps_are_warmed_up_only_while_nobody_is_there(serve):
    def started(scheduler: Scheduler, calls: int) -> list[int]:
        engine: Any = scheduler._engine
        assert engine.started.pop() == 2  # before any session is served
        for _ in range(calls):
            scheduler.run_next()
        found, engine.started = engine.started, []
        return found

    assert serve(1, lambda scheduler, *_: started(scheduler, 5)) == []
    assert serve(0, lambda scheduler, *_: started(scheduler, 1)) == [1]
    assert serve(0, lambda scheduler, *_: started(scheduler, 5)) == [1, 3]


def test_a_number_of_steps_that_memory_does_not_hold_is_left_cold(serve):
    def test(scheduler: Scheduler, *_: Any) -> list[bool]:
        def full(*_: Any, **named: Any) -> list[float]:
            raise DeviceError("not enough memory")

        engine: Any = scheduler._engine
        warm_up, engine.warm_up = engine.warm_up, full
        try:
            return [scheduler.run_next() for _ in range(3)]
        finally:
            engine.warm_up = warm_up

    assert serve(0, test) == [True, False, False]  # tried once, and the worker goes on


def test_sessions_that_always_have_frames_get_chunks_alike(serve):
    """Three, one of them with ten times as many frames."""

    def test(scheduler: Scheduler, clock: FakeClock, sessions: list[Session]) -> None:
        for _ in range(30):
            for session, count in zip(sessions, (10, 1, 1), strict=True):
                for _ in range(count):
                    push(session, clock.now)
            assert scheduler.run_next()
        assert [len(chunks(scheduler, session)) for session in sessions] == [10, 10, 10]
        assert max(chunks(scheduler, sessions[0])) > 10

    serve(3, test, camera_gain=1e6)  # due again at once


def test_a_chunk_waits_for_its_time_then_for_frames_and_repeats_motion_until_they_stay_away(serve):
    def test(scheduler: Scheduler, clock: FakeClock, sessions: list[Session]) -> list[tuple[float, int]]:
        session, made = sessions[0], []
        session.controls = session.controls.changed({"driving_fps": 10.0})  # a chunk every 0.4 s
        push(session, 0.0)
        while clock.now < 8.0:
            before = clock.now
            if scheduler.run_next():
                made.append((round(before, 3), chunks(scheduler, session)[-1]))
            clock.now = round(before + 0.1, 3)
            if clock.now in (0.1, 0.2, 0.3, 0.4):
                push(session, clock.now)
        return made

    repeated = [(1.0, 0), (1.6, 0), (2.2, 0), (2.8, 0)]  # at 3.4 s the last frame is 3 s old
    assert serve(1, test, late_share=1.5, silent_s=3.0) == [(0.0, 1), (0.4, 4), *repeated]


def test_a_paused_session_gets_no_chunk_and_one_that_ended_loses_its_slot(serve):
    def test(scheduler: Scheduler, clock: FakeClock, sessions: list[Session]) -> None:
        paused, ended = sessions
        for session in sessions:
            push(session, 0.0)
        paused.set_playing(False)
        ended.end("over")
        assert not scheduler.run_next()
        assert len(scheduler) == 1
        paused.set_playing(True)
        push(paused, 0.0)
        assert scheduler.run_next()

    serve(2, test)
