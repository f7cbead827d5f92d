"""Parameters that are updated together: optimiser, rate, loss scaler, average, and their state as named tensors."""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from personalive.errors import InputError
from personalive.training.config import TrainConfig
from personalive.training.distributed import ProcessGroup

_BITSANDBYTES = "bitsandbytes"
_SCALARS = {bool: torch.bool, int: torch.int64, float: torch.float64}
_SCALAR_MARK = "#"


class ParameterGroup:
    """AdamW over named parameters, with a loss scaler that works under float16 only."""

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, nn.Parameter],
        config: TrainConfig,
        device: torch.device,
        processes: ProcessGroup,
        *,
        lr: float,
        beta1: float,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> None:
        """
        Args:
            buffers: tensors that change with the parameters and belong to a checkpoint.

        Raises:
            InputError: 8-bit AdamW without bitsandbytes.
        """
        self.name, self.parameters, self.lr, self.processes = name, parameters, lr, processes
        self.buffers, self.config, self.steps = buffers or {}, config.optimiser, config.steps
        self.sharded = config.compute.shard_optimiser and processes.size > 1
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.compute.precision == "float16")
        kind = _adamw(self.config.kind)
        options: dict[str, Any] = {
            "lr": lr,
            "betas": (beta1, self.config.beta2),
            "weight_decay": self.config.weight_decay,
        }
        values = list(parameters.values())
        if self.sharded:
            self.optimiser: torch.optim.Optimizer = _zero_redundancy()(values, kind, **options)
        else:
            self.optimiser = kind(values, **options)

    def backward(self, loss: Tensor, share: float) -> None:
        """Add ``share`` of the loss's gradient."""
        self.scaler.scale(loss * share).backward()

    def update(self, step: int) -> Tensor:
        """One optimiser step with what was added by all processes; clears the gradients.

        Returns:
            The norm of the gradient before clipping. Under float16 it may be infinite: the step is then left out
            and the scale lowered, and the norm is reported as 0.
        """
        values = list(self.parameters.values())
        self.processes.sum_gradients(values)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * self.rate(step)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(values, self.config.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.clear()
        return torch.where(norm.isfinite(), norm, 0.0) if self.scaler.is_enabled() else norm

    def rate(self, step: int) -> float:
        """Share of the full rate in step ``step``, counted from 0."""
        config = self.config
        share = min(1.0, (step + 1) / max(1, config.warmup_steps))
        if config.schedule == "cosine":
            low = config.final_lr_share
            share *= low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return share

    def clear(self) -> None:
        """Forget added gradients."""
        self.optimiser.zero_grad(set_to_none=True)

    # --- state ----------------------------------------------------------------------------------------

    def gather(self) -> None:
        """Bring a sharded state together in the process that writes; all processes call it."""
        if self.sharded:
            cast(Any, self.optimiser).consolidate_state_dict(to=0)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers."""
        return {**self.parameters, **self.buffers}

    def optimiser_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state as ``parameter/entry``; plain numbers become tensors marked with ``#``."""
        found: dict[str, Tensor] = {}
        states = self.optimiser.state_dict()["state"]
        for index, name in enumerate(self.parameters):
            for entry, value in states.get(index, {}).items():
                if isinstance(value, Tensor):
                    found[f"{name}/{entry}"] = value
                elif type(value) in _SCALARS:
                    found[f"{name}/{entry}{_SCALAR_MARK}"] = torch.tensor(value, dtype=_SCALARS[type(value)])
        return found

    def restore_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the result of ``optimiser_tensors``."""
        index_of = {name: index for index, name in enumerate(self.parameters)}
        state: dict[int, dict[str, Any]] = {}
        for key, tensor in tensors.items():
            name, _, entry = key.rpartition("/")
            value = tensor.item() if entry.endswith(_SCALAR_MARK) else tensor.clone()  # not a view of the file
            state.setdefault(index_of[name], {})[entry.removesuffix(_SCALAR_MARK)] = value
        plain = {key: value for key, value in self.optimiser.param_groups[0].items() if key != "params"}
        groups = [plain | {"params": list(range(len(self.parameters)))}]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})


def _adamw(kind: str) -> Any:
    if kind == "adamw":
        return torch.optim.AdamW
    if importlib.util.find_spec(_BITSANDBYTES) is None:
        raise InputError(
            "optimiser.kind adamw8bit needs the package bitsandbytes: run `pip install bitsandbytes`, "
            "or use --set optimiser.kind=adamw"
        )
    return importlib.import_module(f"{_BITSANDBYTES}.optim").AdamW8bit


def _zero_redundancy() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own, on importing it
        return importlib.import_module("torch.distributed.optim").ZeroRedundancyOptimizer


class Average:
    """Exponential moving average of named tensors, warmed up so that early steps do not linger."""

    def __init__(self, tensors: Mapping[str, Tensor], half_life_steps: int) -> None:
        self.tensors = tensors
        self.values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.decay = 0.5 ** (1 / half_life_steps)

    def update(self, step: int) -> None:
        """Move the averages towards the tensors after step ``step``, counted from 0."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        average(list(self.values.values()), [self.tensors[name].detach() for name in self.values], 0)
