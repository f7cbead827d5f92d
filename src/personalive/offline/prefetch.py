"""Items made ahead by another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterable[Item], count: int) -> Generator[Item]:
    """The same items in order, up to ``count`` of them made by another thread while the last one is used.

    An error of ``items`` comes in its place. Close the generator where it is not used up: that ends the thread, after
    the item that it is at.
    """
    end, source = object(), iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="personalive-prefetch") as thread:
        ahead = deque(thread.submit(next, source, end) for _ in range(count))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(thread.submit(next, source, end))
                yield item  # pyright: ignore[reportReturnType]  (the end is no item)
        finally:
            for future in ahead:
                future.cancel()
