"""Time stamps: kept where they increase, repaired by the documented rules elsewhere."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from personalive.media.reader import Timeline
from personalive.media.source import ticks

_STEP, _RESTART = 10, 1000


def _place(stated: list[int | None]) -> tuple[list[int], int]:
    timeline = Timeline(_STEP, _RESTART)
    return [timeline.place(pts) for pts in stated], timeline.repaired


@given(st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40)), min_size=1))
def test_always_strictly_increasing(stated: list[int | None]) -> None:
    placed, _ = _place(stated)
    assert all(a < b for a, b in pairwise(placed))


@given(st.lists(st.integers(-(2**40), 2**40), unique=True).map(sorted))
def test_increasing_stamps_are_kept(stated: list[int]) -> None:
    assert _place(list(stated)) == (stated, 0)


def test_the_three_repairs() -> None:
    assert _place([None, None, 20, None]) == ([0, 10, 20, 30], 3)
    assert _place([0, 0, 10, 8, 20]) == ([0, 5, 10, 15, 20], 2)
    assert _place([5000, 5010, 0, 10, 20]) == ([5000, 5010, 5020, 5030, 5040], 1)


def test_half_a_step_is_at_least_a_tick() -> None:
    timeline = Timeline(step=1, restart=25)
    assert [timeline.place(pts) for pts in (0, 0, 1, 2, 5)] == [0, 1, 2, 3, 5]


@given(st.integers(0, 10**9), st.sampled_from([Fraction(1, 25), Fraction(1001, 30000), Fraction(1, 90000)]))
def test_ticks_inverts_exact_times(count: int, base: Fraction) -> None:
    assert ticks(count * base, base) == count
