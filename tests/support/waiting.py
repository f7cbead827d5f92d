"""Waits for other threads and processes, bounded by lack of progress: a busy machine is slow, and not stuck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0  # without progress


class Patience:
    """Deadline that moves with each change of ``progress``; a fixed one without."""

    def __init__(self, progress: Callable[[], Any] = lambda: None) -> None:
        self._progress, self._seen, self._changed_s = progress, progress(), time.monotonic()

    def check(self) -> float:
        """Return the seconds that are left; fails where none are."""
        seen, now = self._progress(), time.monotonic()
        if seen != self._seen:
            self._seen, self._changed_s = seen, now
        left_s = self._changed_s + PATIENCE_S - now
        assert left_s > 0, f"waited in vain: for {PATIENCE_S:g} s no progress since {seen}"
        return left_s


def wait_until(condition: Callable[[], Any], progress: Callable[[], Any] = lambda: None) -> Any:
    """Return the condition's value once it is true."""
    patience = Patience(progress)
    while not (found := condition()):
        patience.check()
        time.sleep(0.01)
    return found


async def wait_until_async(condition: Callable[[], Any], progress: Callable[[], Any] = lambda: None) -> Any:
    """Return the condition's value once it is true; the event loop runs meanwhile."""
    patience = Patience(progress)
    while not (found := condition()):
        patience.check()
        await asyncio.sleep(0.01)
    return found
