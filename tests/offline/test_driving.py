"""Items made ahead by another thread: order, errors in their place, and an end that leaves no thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.offline.driving import prefetched


@given(st.lists(st.integers()), st.integers(1, 4))
def test_items_come_in_order(items: list[int], count: int):
    assert list(prefetched(iter(items), count)) == items


def test_no_more_than_so_many_are_made_ahead():
    made: list[int] = []
    asked = threading.Event()

    def source() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 2:
                asked.set()
            yield number

    with closing(prefetched(source(), 2)) as items:
        assert next(items) == 0
        assert asked.wait(10)  # the third is made while the first is used
        assert made == [0, 1, 2]


def test_an_error_comes_in_its_place():
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    items = prefetched(source(), 2)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(items)


def test_the_thread_ends_with_the_generator():
    def threads() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.startswith("personalive-prefetch")]

    items = prefetched(iter(range(100)), 2)
    next(items)
    assert threads()
    items.close()
    assert not threads()
