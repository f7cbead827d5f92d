"""The rule that picks source frames for outputs at a constant rate."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.training.data.prepare.stretches import Pick
from personalive.training.data.prepare.stretches import resample as outputs

FPS, SLACK, MAX_GAP_S = 25, 0.1, 0.2
STEP = Fraction(1, FPS)


def resample(times: list[Fraction]) -> list[Pick[int]]:
    return list(outputs(enumerate(times), FPS, SLACK, MAX_GAP_S))


def constant(fps: Fraction, count: int) -> list[Fraction]:
    return [index / fps for index in range(count)]


# gaps of 1 to 190 ms: a pause is longer
gaps = st.lists(st.integers(1, 190), min_size=0, max_size=40)


@settings(max_examples=50, deadline=None)
@given(gaps)
def test_every_output_is_near_its_source_frame_and_in_order(steps: list[int]) -> None:
    times = [Fraction(0)]
    for step in steps:
        times.append(times[-1] + Fraction(step, 1000))
    picks = resample(times)
    assert [pick.time for pick in picks] == [k * STEP for k in range(len(picks))]
    for pick in picks:
        assert pick.source_time == times[pick.item]
        off = abs(pick.source_time - pick.time)
        nearest = min(abs(time - pick.time) for time in times)
        # half a step, or the nearest there is, or within the slack to avoid a repeat
        assert off <= max(STEP / 2, nearest) or (off <= STEP * Fraction("0.6") and pick.item > 0)
    chosen = [pick.item for pick in picks]
    assert chosen == sorted(chosen)
    assert [pick.repeated for pick in picks] == [i > 0 and chosen[i] == chosen[i - 1] for i in range(len(chosen))]
    assert not any(pick.restart for pick in picks)
    assert times[-1] - STEP / 2 <= picks[-1].time + STEP  # nothing left out at the end


@settings(max_examples=50, deadline=None)
@given(gaps)
def test_a_frame_is_never_repeated_while_an_unseen_one_is_within_half_a_step(steps: list[int]) -> None:
    times = [Fraction(0)]
    for step in steps:
        times.append(times[-1] + Fraction(step, 1000))
    for pick in resample(times):
        if pick.repeated:
            unseen = [time for index, time in enumerate(times) if index > pick.item]
            assert all(time - pick.time > STEP / 2 for time in unseen)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=20, max_size=60), st.integers(0, 39))
def test_jitter_around_25_fps_neither_repeats_nor_skips(jitter: list[int], phase_ms: int) -> None:
    """Whatever the phase: also where times lie around the middle between two outputs, as after a pause."""
    times = [Fraction(0), *(Fraction(40 * i + 40 + phase_ms + shift, 1000) for i, shift in enumerate(jitter))]
    picks = resample(times)
    assert sum(pick.repeated for pick in picks) <= 1  # where the phase begins
    skipped = set(range(len(times) - 1)) - {pick.item for pick in picks}
    assert len(skipped) <= 1


@pytest.mark.parametrize(("rate", "seconds"), [("25", 4), ("30", 4), ("30000/1001", 4), ("50", 4), ("60", 3)])
def test_the_length_stays(rate: str, seconds: int) -> None:
    fps = Fraction(rate)
    picks = resample(constant(fps, round(seconds * fps)))
    assert len(picks) == 25 * seconds
    if rate == "25":
        assert [pick.item for pick in picks] == list(range(100))
    if rate == "30":
        assert [pick.item for pick in picks[:7]] == [0, 1, 2, 4, 5, 6, 7]


def test_a_pause_starts_the_grid_anew() -> None:
    times = [*constant(Fraction(25), 10), *(1 + time for time in constant(Fraction(25), 10))]
    picks = resample(times)
    assert [pick.item for pick in picks] == list(range(20))
    assert [pick.time for pick in picks] == times
    assert [pick.item for pick in picks if pick.restart] == [10]
    assert [[pick.item for pick in resample(times)] for times in ([], [Fraction(7)])] == [[], [0]]
