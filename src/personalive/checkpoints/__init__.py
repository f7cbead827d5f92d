"""Weights on disk: where they lie, safe and strict loading, checking, conversion and download.

``folder`` opens a weights folder, ``networks`` loads and saves all networks of one, ``check`` reports on one,
``convert`` makes a half-precision copy, ``download`` fetches the released weights.
"""
