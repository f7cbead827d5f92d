"""Finished frames become pictures while the next call runs: on CUDA, on a stream of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Beside:
    """Where work is done that nothing of the next call waits for; without a CUDA stream, in its turn."""

    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        self.stream = stream

    @classmethod
    def on(cls, device: torch.device) -> Beside:
        """With a stream of its own where the device has any.

        It goes before the next call where both could run: frames that are finished are waited for.
        """
        return cls(torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None)

    @contextmanager
    def work(self, *inputs: Tensor) -> Iterator[None]:
        """Inside, the stream is the current one, behind all that was asked for so far.

        Args:
            inputs: everything that is read inside and may be dropped by others: its memory is not given away before.
        """
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        for tensor in inputs:
            tensor.record_stream(self.stream)
        with torch.cuda.stream(self.stream):
            yield
