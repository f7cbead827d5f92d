"""The loop of every stage: steps numbered from 0, each depending on the numbers before it and on (seed, step) alone.

So a run that was killed and repeated gives the losses of one that was not, bit for bit (one process, one device).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from personalive.progress import Progress
from personalive.training.loop import Average, TrainingError
from personalive.training.recipe.journal import Journal, write_sheet
from personalive.training.recipe.losses import Output
from personalive.training.recipe.optimiser import Player
from personalive.training.recipe.resume import Checkpoints, Resumable
from personalive.training.recipe.settings import TrainConfig
from personalive.training.recipe.stage import StageLosses

CHECKPOINTS, SHEETS = "checkpoints", "sheets"


@dataclass(kw_only=True)
class Loop:
    """One stage being trained in one run folder."""

    config: TrainConfig
    stage: StageLosses
    networks: Player
    discriminator: Player | None
    average: Average | None
    folder: Path
    show: Callable[[Progress], None]
    say: Callable[[str], None]
    finished: int = field(default=0, init=False)  # steps

    def run(self) -> int:
        """Go on from the newest checkpoint to the last step; returns the steps done by this call.

        Raises:
            TrainingError: a loss or gradient that is not a number; the last checkpoint stays.
        """
        kept = Checkpoints(self.folder / CHECKPOINTS, self.config.journal.kept_checkpoints)
        state = Resumable(self._players(), self.average)
        begun = self.finished = kept.restore(state)
        journal = Journal(self.folder, begun, self.config.journal.tensorboard, self.say)
        saved = begun
        try:
            if begun == 0:
                self._look(journal)
            started = time.monotonic()
            for step in range(begun, self.config.steps):
                values = self._step(step)
                self.finished = step + 1
                rate = (self.finished - begun) / (time.monotonic() - started)
                self._tell(journal, values, rate)
                if self._due(self.config.journal.checkpoint_every_steps):
                    kept.save(self.finished, state)
                    saved = self.finished
        except TrainingError as error:
            raise TrainingError(f"{self.folder}: {error} in step {step + 1}: {_rescue(saved)}") from error
        except KeyboardInterrupt as stop:
            stop.add_note(f"{self.folder} is kept up to step {saved}; the same command goes on from there")
            raise
        finally:
            journal.close()
        return self.finished - begun

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

    def _step(self, step: int) -> dict[str, float]:
        """All updates of one step; the means of what was measured."""
        size = self.config.batch
        rows = [range(k * size, (k + 1) * size) for k in range(self.config.accumulate)]
        parts = [self.stage.losses(step, part) for part in rows]
        sums: dict[str, float] = {}
        for _ in range(self.stage.updates):
            outputs = [self._backward(next(part), sums) for part in parts]
            _add(sums, "norm", self.networks.update(step))
            if self.average is not None:
                self.average.update(step)
            pixels, player = self.stage.pixels, self.discriminator
            if pixels is not None and player is not None and step >= self.config.discriminator.train_from_step:
                player.clear()  # of what the networks' loss left there
                for output in outputs:
                    losses = pixels.discriminator_loss(output)
                    _record(sums, losses, 1 / len(outputs))
                    player.backward(losses["discriminator"], 1 / len(outputs))
                _add(sums, "discriminator_norm", player.update(step))
        means = {name: value / self.stage.updates for name, value in sums.items()}
        return means | {"lr": self.networks.optimiser.param_groups[0]["lr"]}

    def _backward(self, output: Output, sums: dict[str, float]) -> Output:
        share = 1 / self.config.accumulate
        _record(sums, output.losses, share)
        self.networks.backward(output.losses["loss"], share)
        return Output({}, output.made, output.real, output.levels)

    # --- what people see ------------------------------------------------------------------------------

    def _tell(self, journal: Journal, values: dict[str, float], rate: float) -> None:
        if self._due(self.config.journal.log_every_steps):
            journal.write(self.finished, "train", values, steps_per_s=round(rate, 4))
        self._look(journal)
        note = f"loss {values['loss']:.4g}"
        self.show(Progress(self.finished, self.config.steps, rate, "steps", note=note))

    def _look(self, journal: Journal) -> None:
        """Held-out losses and a sheet, where they are due."""
        settings = self.config.journal
        with torch.no_grad(), self.averaged():
            if settings.held_out_samples and self._due(settings.held_out_every_steps):
                journal.write(self.finished, "held_out", self._held_out(settings.held_out_samples))
            if settings.sheet_rows and self._due(settings.sheet_every_steps):
                write_sheet(self.stage.sheet(settings.sheet_rows), self._sheet_path())

    def _held_out(self, count: int) -> dict[str, float]:
        sums: dict[str, float] = {}
        for start in range(0, count, self.config.batch):
            rows = range(start, min(start + self.config.batch, count))
            _record(sums, self.stage.held_out(rows), len(rows) / count)
        return sums

    def _sheet_path(self) -> Path:
        return self.folder / SHEETS / f"step-{self.finished:08d}.png"

    def _due(self, every: int) -> bool:
        return self.finished % every == 0 or self.finished == self.config.steps

    def _players(self) -> tuple[Player, ...]:
        return (self.networks,) if self.discriminator is None else (self.networks, self.discriminator)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.networks.parameters.items():
            parameter.copy_(values[name])


def _record(sums: dict[str, float], losses: dict[str, Tensor], share: float) -> None:
    for name, value in losses.items():
        number = value.item()
        if not math.isfinite(number):
            raise TrainingError(f"the {name} is not a number")
        _add(sums, name, share * number)


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value


def _rescue(saved: int) -> str:
    if not saved:
        return "no checkpoint was due yet; lower optimiser.lr"
    rest = "or lower optimiser.lr in a new run"
    return f"the checkpoint of step {saved} is kept; --set steps={saved} exports it, {rest}"
