"""Progress of long jobs: speed and time left are given once they are known."""

from __future__ import annotations

import pytest

from personalive import progress
from personalive.progress import Meter, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [50.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_no_time_left_before_a_second_or_a_few_percent(clock: list[float]):
    meter = Meter(1000)
    clock[0] += 0.1
    early, some = meter.at(1), meter.at(30)
    assert (early.rate, early.left_s, early.fps) == (None, None, 0.0)
    assert (some.rate, some.left_s) == (pytest.approx(300), pytest.approx(970 / 300))
    clock[0] += 0.9
    assert meter.at(1).left_s == pytest.approx(999)


def test_work_of_earlier_runs_counts_as_done_but_not_for_the_rate(clock: list[float]):
    meter = Meter(100, "bytes", found=60)
    clock[0] += 2
    now = meter.at(80, "a.bin")
    assert now == Progress(80, 100, 10.0, "bytes", "", "a.bin")
    assert now.left_s == 2


def test_the_first_bytes_say_nothing_about_the_time_left(clock: list[float]):
    meter = Meter(12_000_000_000, "bytes", label="loading")
    clock[0] += 2
    assert meter.at(10_000).left_s is None
    assert meter.at(1_200_000_000).left_s == pytest.approx(18)


@pytest.mark.parametrize("total", [None, 5])
def test_no_time_left_without_a_total_that_holds(total: int | None):
    assert Progress(10, total, 2.0).left_s is None
