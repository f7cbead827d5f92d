"""Compilation where numba may keep nothing on disk."""

from __future__ import annotations

from personalive.synthetic.compiled import compiled


def test_a_function_that_cannot_be_kept_is_compiled_anyway():
    """As in a read-only installation without a home; here its source has no file."""
    place: dict = {}
    exec("def twice(x):\n    return 2 * x\n", place)
    assert compiled(place["twice"])(21) == 42
