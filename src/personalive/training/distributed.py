"""Processes of one run, started by ``torchrun``: each computes its batches of every step, and gradients are summed.

A step has ``accumulate`` batches; process r of W takes batches r, r + W, ... So a step is the same for any W, and a
run may be resumed with another. Gradients are summed once per step, whatever networks they passed through, which
DistributedDataParallel cannot: it wants one module with one forward pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from personalive.errors import InputError, TrainingError

_BUCKET_VALUES = 1 << 24  # 64 MB


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Rank of this process and their number."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Tell whether this process writes files and reports progress."""
        return self.rank == 0

    def batches(self, accumulate: int) -> range:
        """Numbers of this process's batches out of ``accumulate``.

        Raises:
            InputError: they cannot be shared equally.
        """
        if accumulate % self.size:
            raise InputError(
                f"{accumulate} batches per step cannot be shared by {self.size} processes: "
                f"--set accumulate={-(-accumulate // self.size) * self.size} or start another number of processes"
            )
        return range(self.rank, accumulate, self.size)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes; it stays None where no process has one."""
        if self.size == 1:
            return
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
        self._run(lambda: dist.all_reduce(has, dist.ReduceOp.MAX))
        gradients = []
        for parameter, flag in zip(parameters, has.tolist(), strict=True):
            if flag and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        ends = accumulate(gradient.numel() for gradient in gradients)
        # in groups: a sum of each alone would cost more time than it carries
        for _, group in groupby(zip(ends, gradients, strict=True), lambda pair: pair[0] // _BUCKET_VALUES):
            bucket = [gradient for _, gradient in group]
            vector_to_parameters(self.sum(parameters_to_vector(bucket)), bucket)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the processes."""
        if self.size > 1:
            values = values.clone()
            self._run(lambda: dist.all_reduce(values))
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            self.sum(torch.zeros(1, device="cuda" if dist.get_backend() == "nccl" else "cpu"))

    def _run(self, collective: Callable[[], object]) -> None:
        """
        Raises:
            TrainingError: another process is gone.
        """
        try:
            collective()
        except RuntimeError as error:  # what torch.distributed raises differs by backend
            raise TrainingError(
                "another process of this run has ended: the same command goes on from the last checkpoint"
            ) from error


def join_processes(device: str) -> tuple[ProcessGroup, str]:
    """Join the processes that ``torchrun`` describes in the environment; one process without it.

    Returns:
        The group, and the device of this process: its own GPU where ``device`` is "auto" or "cuda".
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ProcessGroup(), device
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return ProcessGroup(dist.get_rank(), dist.get_world_size()), device
