"""Players of clips, with a fake clock."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from personalive.live import players
from personalive.live.config import LiveConfig
from personalive.live.players import ClipPlayer
from personalive.live.session import Session


def test_a_clip_that_lasts_no_time_is_not_played_without_end(monkeypatch):
    pushed, waits, now = [], [], [0.0]

    class Still:
        average_fps, duration_s = Fraction(25), None
        info = property(lambda self: self)
        close = rewind = lambda self: None
        image, time, duration = np.zeros((64, 64, 3), np.uint8), Fraction(0), Fraction(0)

        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None: ...

        def __iter__(self):
            return iter([self])

    class FakeSession:
        playing, ended, config = True, None, LiveConfig()
        clock = staticmethod(lambda: now[0])

        def push(self, frame: Any, driver: str) -> None:
            pushed.append(frame.capture_us)

    monkeypatch.setattr(players, "open_isolated_video", lambda path: Still())
    player = ClipPlayer(Path("still.mp4"), cast(Session, FakeSession()), loop=True)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        now[0] += seconds
        return False

    monkeypatch.setattr(player._stop, "wait", wait)
    for _ in range(3):
        assert player._play_once()
    assert pushed == [0, 40_000, 80_000]
    assert sum(waits) == pytest.approx(0.12)
