"""Resampling of driving frames: the driver's own speed, whatever the two rates."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.live.resampling import Pick, resample

COUNT = st.integers(1, 8)
TIMES = st.lists(st.floats(0.001, 10.0), min_size=1, max_size=30).map(sorted)


def whole(*numbers: int) -> list[Pick]:
    return [Pick(number, number, 0.0) for number in numbers]


def shown(picks: list[Pick], last: float, times: list[float]) -> list[float]:
    """Return the driver's time that each pick shows."""
    known = [last, *times]
    return [known[p.low] + p.weight * (known[p.high] - known[p.low]) for p in picks]


@given(TIMES, COUNT)
def test_a_chunk_is_full_ends_with_the_newest_frame_and_never_goes_back(times, count):
    picks = resample(times, 0.0, count)
    assert len(picks) == count
    assert shown(picks, 0.0, times)[-1] == times[-1]
    assert picks[-1].nearest == len(times)
    driver_times = shown(picks, 0.0, times)
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(driver_times))
    assert driver_times[0] >= 0.0
    assert all(0 <= p.low <= p.high <= len(times) and p.high - p.low <= 1 and 0 <= p.weight <= 1 for p in picks)


@given(TIMES, COUNT)
def test_no_pick_is_further_from_even_than_the_frames_allow(times, count):
    """Blends are exactly even; frames taken as they are lie within the gap around the even time."""
    picks = resample(times, 0.0, count)
    even = [times[-1] * (step + 1) / count for step in range(count)]
    if len(times) < count:
        assert shown(picks, 0.0, times) == pytest.approx(even)
        return
    for pick, time in zip(picks, even, strict=True):
        assert pick.low == pick.high >= 1  # an old frame is not shown again where there are enough new ones
        assert abs(times[pick.low - 1] - time) == pytest.approx(min(abs(known - time) for known in times))


@given(st.integers(1, 6), st.integers(1, 5))
def test_of_evenly_spaced_frames_every_so_manyth_is_taken(count, factor):
    """A camera of ``factor`` times the rate: each factor-th frame, none blended."""
    times = [step / (count * factor) for step in range(1, count * factor + 1)]
    assert resample(times, 0.0, count) == whole(*range(factor, count * factor + 1, factor))


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([2.0], [Pick(0, 1, 0.25), Pick(0, 1, 0.5), Pick(0, 1, 0.75), Pick(1, 1, 0.0)]),
        ([1.0, 2.0], [Pick(0, 1, 0.5), Pick(0, 1, 1.0), Pick(1, 2, 0.5), Pick(2, 2, 0.0)]),
    ],
)
def test_a_slow_camera_is_blended_in_quarters_and_halves(times, wanted):
    assert resample(times, 0.0, 4) == wanted


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1e6), max_size=5).map(sorted), COUNT)
def test_where_nothing_new_came_the_newest_is_repeated(last, times, count):
    times = [time for time in times if time <= last]
    assert resample(times, last, count) == whole(*[len(times)] * count)


@given(TIMES, COUNT)
def test_the_first_chunk_shows_the_newest_frames_and_repeats_the_first_where_they_are_few(times, count):
    first = max(len(times) - count + 1, 1)
    newest = list(range(first, len(times) + 1))
    assert resample(times, None, count) == whole(*[first] * (count - len(newest)), *newest)


@pytest.mark.parametrize(("times", "last"), [([], None), ([2.0, 1.0], None), ([2.0, 1.0], 0.0)])
def test_frames_that_are_missing_or_out_of_order_are_refused(times, last):
    with pytest.raises(ValueError, match=r"frame|fall"):
        resample(times, last, 4)


def test_a_blend_is_called_after_the_nearer_frame():
    assert [Pick(1, 2, weight).nearest for weight in (0.0, 0.49, 0.5, 1.0)] == [1, 1, 2, 2]
