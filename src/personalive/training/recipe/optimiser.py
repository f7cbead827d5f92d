"""Optimisers and loss scalers, and their state as flat named tensors."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.training.loop import TrainingError
from personalive.training.recipe.settings import OptimiserConfig, TrainConfig

_BITSANDBYTES = "bitsandbytes"


@dataclass(frozen=True, slots=True, eq=False)
class Player:
    """Parameters that are updated together."""

    name: str
    parameters: Mapping[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    lr: float
    config: OptimiserConfig

    def backward(self, loss: Tensor, share: float) -> None:
        """Add ``share`` of the loss's gradient."""
        self.scaler.scale(loss * share).backward()

    def update(self, step: int) -> float:
        """One optimiser step with what was added; clears the gradients.

        Returns:
            The norm of the gradient before clipping. Under float16 it may be infinite: the step is then left out
            and the scale lowered, and the norm is reported as 0.

        Raises:
            TrainingError: the gradient is not a number.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip_norm).item()
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise TrainingError(f"the gradient of the {self.name} is not a number")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.clear()
        return norm if math.isfinite(norm) else 0.0

    def clear(self) -> None:
        """Forget added gradients."""
        self.optimiser.zero_grad(set_to_none=True)


def make_player(
    name: str, parameters: Mapping[str, nn.Parameter], lr: float, config: TrainConfig, device: torch.device
) -> Player:
    """AdamW over ``parameters``, with a loss scaler that works under float16 only.

    Raises:
        InputError: 8-bit AdamW without bitsandbytes.
    """
    settings = config.optimiser
    arguments: dict[str, Any] = {
        "lr": lr,
        "betas": (settings.beta1, settings.beta2),
        "weight_decay": settings.weight_decay,
    }
    kind: Any = torch.optim.AdamW
    if settings.kind == "adamw8bit":
        if importlib.util.find_spec(_BITSANDBYTES) is None:
            raise InputError(
                "optimiser.kind adamw8bit needs the package bitsandbytes: run `pip install bitsandbytes`, "
                "or use --set optimiser.kind=adamw"
            )
        kind = importlib.import_module(f"{_BITSANDBYTES}.optim").AdamW8bit
    scaler = torch.amp.GradScaler(device.type, enabled=config.compute.precision == "float16")
    return Player(name, parameters, kind(list(parameters.values()), **arguments), scaler, lr, settings)


_SCALARS = {bool: torch.bool, int: torch.int64, float: torch.float64}
_SCALAR_MARK = "#"


def optimiser_tensors(player: Player) -> dict[str, Tensor]:
    """The optimiser's state as ``parameter/entry``; plain numbers become tensors marked with ``#``."""
    found: dict[str, Tensor] = {}
    states = player.optimiser.state_dict()["state"]
    for index, name in enumerate(player.parameters):
        for entry, value in states.get(index, {}).items():
            if isinstance(value, Tensor):
                found[f"{name}/{entry}"] = value
            elif type(value) in _SCALARS:
                found[f"{name}/{entry}{_SCALAR_MARK}"] = torch.tensor(value, dtype=_SCALARS[type(value)])
    return found


def restore_optimiser(player: Player, tensors: Mapping[str, Tensor]) -> None:
    """Result of ``optimiser_tensors``."""
    index_of = {name: index for index, name in enumerate(player.parameters)}
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        value = tensor.item() if entry.endswith(_SCALAR_MARK) else tensor.clone()  # not a view of the file
        state.setdefault(index_of[name], {})[entry.removesuffix(_SCALAR_MARK)] = value
    groups = player.optimiser.state_dict()["param_groups"]
    player.optimiser.load_state_dict({"state": state, "param_groups": groups})
