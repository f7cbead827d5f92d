"""Checkpoints of a run: folders that appear only when whole, of tensors and one JSON file; nothing is pickled."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personalive.checkpoints.files import TensorInfo, read_tensors, whole_folder, write_safetensors
from personalive.errors import CheckpointError
from personalive.training.optimiser import Average, ParameterGroup

_NAME = re.compile(r"step-(\d{8})")
_STATE = "state.json"


@dataclass(frozen=True, slots=True, eq=False)
class Resumable:
    """Everything that changes while training."""

    groups: tuple[ParameterGroup, ...]
    average: Average | None


class Checkpoints:
    """The checkpoints in one folder, newest last."""

    def __init__(self, folder: Path, kept: int) -> None:
        self.folder, self.kept = folder, kept

    def steps(self) -> list[int]:
        """Finished steps of every whole checkpoint, rising."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, state: Resumable) -> Path:
        """Write the state after ``step`` steps, then remove what is older than the kept ones.

        Raises:
            OutputError: the disk refuses or is full; older checkpoints are untouched.
        """
        path = self.folder / f"step-{step:08d}"
        if path.exists():  # a run that was told more steps ends where it began
            return path
        with whole_folder(path) as temporary:
            for group in state.groups:
                _write(temporary / f"{group.name}.safetensors", group.tensors())
                _write(temporary / f"{group.name}-optimiser.safetensors", group.optimiser_tensors())
            if state.average is not None:
                _write(temporary / "average.safetensors", state.average.values)
            scalers = {group.name: group.scaler.state_dict() for group in state.groups}
            (temporary / _STATE).write_text(json.dumps({"step": step, "scalers": scalers}))
        for old in self.steps()[: -self.kept]:
            shutil.rmtree(self.folder / f"step-{old:08d}")
        return path

    def sweep(self) -> None:
        """Remove what a killed process left half written."""
        if self.folder.is_dir():
            for path in self.folder.glob(".step-*.partial"):
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, state: Resumable) -> int:
        """Load the newest checkpoint into ``state`` and return its finished steps, 0 without any.

        Raises:
            CheckpointError: it is damaged or of another model.
        """
        if not self.steps():
            return 0
        path = self.folder / f"step-{self.steps()[-1]:08d}"
        try:
            raw = json.loads((path / _STATE).read_text())
            for group in state.groups:
                _fill(group.tensors(), read_tensors(path / f"{group.name}.safetensors"))
                group.restore_optimiser(read_tensors(path / f"{group.name}-optimiser.safetensors"))
                group.scaler.load_state_dict(raw["scalers"][group.name])
            if state.average is not None:
                _fill(state.average.values, read_tensors(path / "average.safetensors"))
            return int(raw["step"])
        except (OSError, ValueError, KeyError, RuntimeError, CheckpointError) as error:
            raise CheckpointError(
                f"{path}: damaged, or of another model ({type(error).__name__}): remove it to resume from the one "
                "before it"
            ) from error


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    infos = {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    write_safetensors(path, infos, lambda name: tensors[name])


@torch.no_grad()
def _fill(parameters: Mapping[str, Tensor], tensors: Mapping[str, Any]) -> None:
    if parameters.keys() != tensors.keys():
        raise KeyError("parameters")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
