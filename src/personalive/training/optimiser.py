"""Parameters that are updated together: optimiser, rate, loss scaler, average; and checkpoints of a run.

A checkpoint is a folder that appears only when whole, of tensors and one JSON file; nothing is pickled.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from personalive.checkpoints.files import TensorInfo, read_tensors, whole_folder, write_safetensors
from personalive.errors import CheckpointError, InputError
from personalive.training.stages.base import Context

_BITSANDBYTES = "bitsandbytes"
_SCALAR_MARK = "#"
_NAME, _STATE = re.compile(r"step-(\d{8})"), "state.json"


class ParameterGroup:
    """AdamW over named parameters, with a loss scaler that works under float16 only, and their moving average."""

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, nn.Parameter],
        context: Context,
        *,
        lr: float,
        beta1: float,
        buffers: Mapping[str, Tensor],
        averaged: bool = False,
    ) -> None:
        """
        Args:
            buffers: tensors that change with the parameters and belong to a checkpoint.
            averaged: keep an exponential moving average.

        Raises:
            InputError: 8-bit AdamW without bitsandbytes.
        """
        self.name, self.parameters, self.lr = name, parameters, lr
        self.tensors = {**parameters, **buffers}
        self.config, self.processes = context.config, context.processes
        self.average = {n: p.detach().clone() for n, p in parameters.items()} if averaged else {}
        self.sharded = self.config.compute.shard_optimiser and self.processes.size > 1
        half = self.config.compute.precision == "float16"
        self.scaler = torch.amp.GradScaler(context.compute.device.type, enabled=half)
        settings = self.config.optimiser
        kind, values = _adamw(settings.kind), list(parameters.values())
        options: Any = {"lr": lr, "betas": (beta1, settings.beta2), "weight_decay": settings.weight_decay}
        self.optimiser: torch.optim.Optimizer = (
            _zero_redundancy()(values, kind, **options) if self.sharded else kind(values, **options)
        )

    def backward(self, loss: Tensor, share: float) -> None:
        """Add ``share`` of the loss's gradient."""
        self.scaler.scale(loss * share).backward()

    def update(self, step: int) -> Tensor:
        """One optimiser step with what was added by all processes; clears the gradients and moves the average.

        Returns:
            The norm of the gradient before clipping. Under float16 it may be infinite: the step is then left out
            and the scale lowered, and the norm is reported as 0.
        """
        values = list(self.parameters.values())
        self.processes.sum_gradients(values)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * self.rate(step)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(values, self.config.optimiser.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        if self.average:  # warmed up, so that early steps do not linger
            decay = 0.5 ** (1 / self.config.average.half_life_steps)
            average = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))
            average(list(self.average.values()), [value.detach() for value in values], 0)
        return torch.where(norm.isfinite(), norm, 0.0) if self.scaler.is_enabled() else norm

    def rate(self, step: int) -> float:
        """Share of the full rate in step ``step``, counted from 0."""
        config = self.config.optimiser
        share = min(1.0, (step + 1) / max(1, config.warmup_steps))
        if config.schedule == "cosine":
            low = config.final_lr_share
            share *= low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.config.steps)))
        return share

    # --- state ----------------------------------------------------------------------------------------

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters are their averages, if they are averaged."""
        own = {name: self.parameters[name].detach().clone() for name in self.average}
        copy_into(self.parameters, self.average)
        try:
            yield
        finally:
            copy_into(self.parameters, own)

    def gather(self) -> None:
        """Bring a sharded state together in the process that writes; all processes call it."""
        if self.sharded:
            cast(Any, self.optimiser).consolidate_state_dict(to=0)

    def optimiser_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state as ``parameter/entry``; plain numbers become tensors marked with ``#``."""
        found: dict[str, Tensor] = {}
        states = self.optimiser.state_dict()["state"]
        for index, name in enumerate(self.parameters):
            for entry, value in states.get(index, {}).items():
                if isinstance(value, Tensor):
                    found[f"{name}/{entry}"] = value
                elif isinstance(value, bool | int | float):
                    found[f"{name}/{entry}{_SCALAR_MARK}"] = torch.from_numpy(np.array(value))
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


@torch.no_grad()
def copy_into(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy ``values`` into the tensors of the same names."""
    for name, value in values.items():
        tensors[name].copy_(value)


# --- checkpoints ----------------------------------------------------------------------------------------------


class Checkpoints:
    """The checkpoints in one folder, newest last."""

    def __init__(self, folder: Path, kept: int) -> None:
        self.folder, self.kept = folder, kept

    def steps(self) -> list[int]:
        """Finished steps of every whole checkpoint, rising."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, groups: Sequence[ParameterGroup]) -> None:
        """Write the groups after ``step`` steps, then remove what is older than the kept ones.

        Raises:
            OutputError: the disk refuses or is full; older checkpoints are untouched.
        """
        path = self.folder / f"step-{step:08d}"
        if path.exists():  # a run that was told more steps ends where it began
            return
        with whole_folder(path) as temporary:
            for group in groups:
                _write(temporary / f"{group.name}.safetensors", group.tensors)
                _write(temporary / f"{group.name}-optimiser.safetensors", group.optimiser_tensors())
                if group.average:
                    _write(temporary / "average.safetensors", group.average)
            scalers = {group.name: group.scaler.state_dict() for group in groups}
            (temporary / _STATE).write_text(json.dumps({"step": step, "scalers": scalers}))
        for old in self.steps()[: -self.kept]:
            shutil.rmtree(self.folder / f"step-{old:08d}")

    def sweep(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.glob(".step-*.partial"):
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, groups: Sequence[ParameterGroup]) -> int:
        """Load the newest checkpoint into ``groups`` and return its finished steps, 0 without any.

        Raises:
            CheckpointError: it is damaged or of another model.
        """
        if not self.steps():
            return 0
        path = self.folder / f"step-{self.steps()[-1]:08d}"
        try:
            raw = json.loads((path / _STATE).read_text())
            for group in groups:
                _fill(group.tensors, read_tensors(path / f"{group.name}.safetensors"))
                group.restore_optimiser(read_tensors(path / f"{group.name}-optimiser.safetensors"))
                group.scaler.load_state_dict(raw["scalers"][group.name])
                if group.average:
                    _fill(group.average, read_tensors(path / "average.safetensors"))
            return int(raw["step"])
        except (OSError, ValueError, KeyError, RuntimeError, CheckpointError) as error:
            raise CheckpointError(
                f"{path}: damaged, or of another model ({type(error).__name__}): remove it to resume from the one "
                "before it"
            ) from error


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    infos = {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    write_safetensors(path, infos, lambda name: tensors[name])


def _fill(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    if parameters.keys() != tensors.keys():
        raise KeyError("parameters")
    copy_into(parameters, tensors)
