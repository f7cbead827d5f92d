"""Ctrl-C, where a command has processes that work for it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import cv2


def begin_worker() -> None:
    """Leave Ctrl-C to the parent, and the other cores to other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


@contextmanager
def sigint_later() -> Iterator[None]:
    """A Ctrl-C meanwhile is answered afterwards. Processes begun meanwhile are deaf to it before they can say so."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
