"""The loop of every stage: steps numbered from 0, each depending on the numbers before it and on (seed, step) alone.

So a run that was killed and repeated gives the losses of one that was not, bit for bit (on one device, with the same
number of processes). No step waits for the device: losses are read when a row of the log is due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personalive.errors import TrainingError
from personalive.progress import Progress
from personalive.training.config import TrainConfig
from personalive.training.distributed import ProcessGroup
from personalive.training.log import RunLog, write_sheet
from personalive.training.losses import Output
from personalive.training.optimiser import Average, ParameterGroup
from personalive.training.stages.base import StageLosses
from personalive.training.state import Checkpoints, Resumable

CHECKPOINTS, SHEETS = "checkpoints", "sheets"
_NORMS = {"norm": "networks", "discriminator_norm": "discriminator"}  # of gradients: equal in all processes
Values = dict[str, Tensor]


@dataclass(kw_only=True)
class Loop:
    """One stage being trained in one run folder."""

    config: TrainConfig
    stage: StageLosses[Any]
    networks: ParameterGroup
    discriminator: ParameterGroup | None
    average: Average | None
    folder: Path
    processes: ProcessGroup
    on_progress: Callable[[Progress], None]
    on_message: Callable[[str], None]
    finished: int = field(default=0, init=False)  # steps
    saved: int = field(default=0, init=False)  # steps of the newest checkpoint
    _unread: list[tuple[int, Values]] = field(default_factory=list, init=False)  # steps whose losses nobody has read

    def run(self) -> int:
        """Go on from the newest checkpoint to the last step; returns the steps done by this call.

        Raises:
            TrainingError: a loss or gradient that is not a number, or another process is gone; the last checkpoint
                stays.
        """
        kept = Checkpoints(self.folder / CHECKPOINTS, self.config.journal.kept_checkpoints)
        state = Resumable(self._groups(), self.average)
        if self.processes.writes:
            kept.sweep()
        begun = self.finished = self.saved = kept.restore(state)
        log = (
            RunLog(self.folder, begun, self.config.journal.tensorboard, self.on_message)
            if self.processes.writes
            else None
        )
        try:
            if begun == 0:
                self._look(log)
            self._steps(begun, log, kept, state)
        except KeyboardInterrupt as stop:
            stop.add_note(f"{self.folder} is kept up to step {self.saved}; the same command goes on from there")
            raise
        finally:
            if log is not None:
                log.close()
        return self.finished - begun

    def _steps(self, begun: int, log: RunLog | None, kept: Checkpoints, state: Resumable) -> None:
        batches = self.stage.batches(begun, self.folder, self.on_progress)
        started = time.monotonic()
        for step in range(begun, self.config.steps):
            self._unread.append((step, self._step(step, batches)))
            self.finished = step + 1
            rate = (self.finished - begun) / (time.monotonic() - started)
            log_due, checkpoint_due = map(
                self._due, (self.config.journal.log_every_steps, self.config.journal.checkpoint_every_steps)
            )
            if log_due or checkpoint_due:
                values = self._read()
                if log_due and log is not None:
                    log.write(self.finished, "train", values, steps_per_s=round(rate, 4))
                note = f"loss {values['loss']:.4g}"
                self.on_progress(Progress(self.finished, self.config.steps, rate, "steps", note=note))
            else:
                self.on_progress(Progress(self.finished, self.config.steps, rate, "steps"))
            self._look(log)
            if checkpoint_due:
                self._save(kept, state)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the networks have their averaged parameters, if they are averaged."""
        if self.average is None:
            yield
            return
        own = {name: parameter.detach().clone() for name, parameter in self.networks.parameters.items()}
        self._put(self.average.values)
        try:
            yield
        finally:
            self._put(own)

    # --- one step -------------------------------------------------------------------------------------

    def _step(self, step: int, batches: Iterator[tuple[Any, Any]]) -> Values:
        """All updates of one step; the means of what was measured, this process's part of them."""
        count = len(self.processes.batches(self.config.accumulate))
        parts = [self.stage.losses(step, *next(batches)) for _ in range(count)]
        sums: Values = {}
        for _ in range(self.stage.updates):
            outputs = [self._backward(next(part), sums) for part in parts]
            _add(sums, "norm", self.networks.update(step))
            if self.average is not None:
                self.average.update(step)
            adversary, group = self.stage.adversary, self.discriminator
            if adversary is not None and group is not None and step >= self.config.discriminator.train_from_step:
                group.clear()  # of what the networks' loss left there
                for output in outputs:
                    losses = adversary.discriminator_loss(*output.judged)
                    self._record(losses, sums)
                    group.backward(losses["discriminator"], 1 / self.config.accumulate)
                _add(sums, "discriminator_norm", group.update(step))
        return {name: value / self.stage.updates for name, value in sums.items()}

    def _backward(self, output: Output, sums: Values) -> Output:
        self._record(output.losses, sums)
        self.networks.backward(output.losses["loss"], 1 / self.config.accumulate)
        return Output({}, output.judged)

    def _record(self, losses: Mapping[str, Tensor], sums: Values) -> None:
        for name, value in losses.items():
            _add(sums, name, value.detach() / self.config.accumulate)

    def _read(self) -> dict[str, float]:
        """Losses of the newest step; checks those of all steps since the last time.

        Raises:
            TrainingError: one is not a number.
        """
        unread, self._unread = self._unread, []
        read: dict[str, float] = {}
        for step, values in unread:
            shares = [value / self.processes.size if name in _NORMS else value for name, value in values.items()]
            numbers = self.processes.sum(torch.stack([share.float() for share in shares])).tolist()
            read = dict(zip(values, numbers, strict=True))
            for name, number in read.items():
                if number - number != 0:  # not finite
                    what = f"gradient of the {_NORMS[name]}" if name in _NORMS else name
                    raise TrainingError(
                        f"{self.folder}: the {what} is not a number in step {step + 1}: {self._rescue()}"
                    )
        return read | {"lr": self.networks.optimiser.param_groups[0]["lr"]}

    def _rescue(self) -> str:
        if not self.saved:
            return "no checkpoint was due yet; lower optimiser.lr"
        rest = "or lower optimiser.lr in a new run"
        return f"the checkpoint of step {self.saved} is kept; --set steps={self.saved} exports it, {rest}"

    # --- what is kept and shown -----------------------------------------------------------------------

    def _save(self, kept: Checkpoints, state: Resumable) -> None:
        for group in state.groups:
            group.gather()
        if self.processes.writes:
            kept.save(self.finished, state)
        self.saved = self.finished

    def _look(self, log: RunLog | None) -> None:
        """Held-out losses and a sheet, where they are due."""
        settings = self.config.journal
        if log is None:
            return
        with torch.no_grad(), self.averaged():
            if settings.held_out_samples and self._due(settings.held_out_every_steps):
                log.write(self.finished, "held_out", self._held_out(settings.held_out_samples))
            if settings.sheet_rows and self._due(settings.sheet_every_steps):
                path = self.folder / SHEETS / f"step-{self.finished:08d}.png"
                write_sheet(self.stage.sheet(settings.sheet_rows), path)

    def _held_out(self, count: int) -> dict[str, float]:
        sums: dict[str, float] = {}
        for start in range(0, count, self.config.batch):
            rows = range(start, min(start + self.config.batch, count))
            for name, value in self.stage.held_out(rows).items():
                sums[name] = sums.get(name, 0.0) + len(rows) / count * value.item()
        return sums

    def _due(self, every: int) -> bool:
        return self.finished % every == 0 or self.finished == self.config.steps

    def _groups(self) -> tuple[ParameterGroup, ...]:
        return (self.networks,) if self.discriminator is None else (self.networks, self.discriminator)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.networks.parameters.items():
            parameter.copy_(values[name])


def _add(sums: Values, name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value
