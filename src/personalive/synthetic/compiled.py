"""Compilation of the renderer's loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """``function`` compiled by numba; kept on disk where it has a place, else compiled anew by each process.

    Service users and containers may have neither a home nor code that they may write to.
    """
    try:
        return njit(cache=True, fastmath=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return njit(fastmath=True)(function)
