"""From the host's memory to a device's and back, without waiting for what the device is doing."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device.

    CUDA copies from pinned memory when the copy's turn comes; from other memory the host waits until all that was
    asked before is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@lru_cache(maxsize=256)
def constant(values: tuple, device: torch.device) -> Tensor:
    """Numbers, nested as they come, as a tensor on the device: copied once. Not to be written to."""
    return torch.tensor(values, device=device)


class ToHost:
    """A tensor's numbers on their way to the host's memory, behind whatever the device is still to do for them."""

    def __init__(self, tensor: Tensor) -> None:
        """Begin to copy; on CUDA the host may go on with something else."""
        tensor = tensor.detach()
        self._ready: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._tensor = tensor.cpu()
            return
        self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._tensor.copy_(tensor, non_blocking=True)
        self._ready = torch.cuda.Event()
        self._ready.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """On the CPU, when it is there."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._tensor
