"""The loop of every stage: steps numbered from 0, each depending on the numbers before it and on (seed, step) alone.

So a run that was killed and repeated gives the losses of one that was not, bit for bit (on one device, with the same
number of processes). No step waits for the device: losses are read when a row of the log is due.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from personalive.errors import TrainingError
from personalive.media.still import save_png
from personalive.progress import Progress
from personalive.training.log import RunLog
from personalive.training.losses import Output
from personalive.training.optimiser import Checkpoints, ParameterGroup
from personalive.training.parameters import choose
from personalive.training.presets import Stage
from personalive.training.stages.base import Context, StageLosses
from personalive.training.stages.encoders import AutoencoderLosses, ExtractorLosses, MotionEncoderLosses
from personalive.training.stages.image_level import DetailLosses, DistillLosses, MotionLosses
from personalive.training.stages.stream import StreamLosses

CHECKPOINTS, SHEETS = "checkpoints", "sheets"
NOTHING_KEPT = "no checkpoint was due yet; lower optimiser.lr"
_NORMS = {"norm": "networks", "discriminator_norm": "discriminator"}  # of gradients: equal in all processes
Values = dict[str, Tensor]
STAGE_LOSSES: Mapping[Stage, Callable[[Context], StageLosses[Any]]] = MappingProxyType(
    {
        "autoencoder": AutoencoderLosses,
        "extractor": ExtractorLosses,
        "motion_encoder": MotionEncoderLosses,
        "motion": MotionLosses,
        "distill": DistillLosses,
        "stream": StreamLosses,
        "detail": DetailLosses,
    }
)


class Loop:
    """One stage being trained in one run folder: its losses, parameters and optimisers."""

    def __init__(
        self,
        context: Context,
        folder: Path,
        on_progress: Callable[[Progress], None],
        on_message: Callable[[str], None],
    ) -> None:
        """See ``personalive.training.run.train``."""
        config, settings = context.config, context.config.optimiser
        self.config, self.processes, self.folder = config, context.processes, folder
        self.on_progress, self.on_message = on_progress, on_message
        parameters = choose(context.networks, config.stage, config.freeze)
        self.stage = STAGE_LOSSES[config.stage](context)
        if self.stage.readers is not None:
            parameters |= {f"readers.{name}": value for name, value in self.stage.readers.named_parameters()}
        count = sum(parameter.numel() for parameter in parameters.values())
        place = f"{len(parameters)} tensors on {context.compute.device}"
        on_message(f"{config.stage}: trains {count:,} parameters in {place}")
        self.networks = ParameterGroup(
            "networks",
            parameters,
            context,
            lr=settings.lr,
            beta1=settings.beta1,
            buffers=self.stage.buffers,
            averaged=config.average.on,
        )
        self.groups = [self.networks]
        if self.stage.adversary is not None:
            module = self.stage.adversary.discriminator
            self.groups.append(
                ParameterGroup(
                    "discriminator",
                    dict(module.named_parameters()),
                    context,
                    lr=settings.discriminator_lr,
                    beta1=settings.discriminator_beta1,
                    buffers=dict(module.named_buffers()),
                )
            )
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, config.journal.kept_checkpoints)
        self.finished = self.saved = 0  # steps; those of the newest checkpoint
        self._unread: list[tuple[int, Values]] = []  # steps whose losses nobody has read

    def run(self) -> int:
        """Go on from the newest checkpoint to the last step; returns the steps done by this call.

        Raises:
            TrainingError: a loss or gradient that is not a number, or another process is gone; the last checkpoint
                stays.
        """
        if self.processes.writes:
            self.checkpoints.sweep()
        begun = self.finished = self.saved = self.checkpoints.restore(self.groups)
        log = None
        if self.processes.writes:
            log = RunLog(self.folder, begun, self.config.journal.tensorboard, self.on_message)
        try:
            if begun == 0:
                self._look(log)
            self._steps(begun, log)
        except KeyboardInterrupt as stop:
            stop.add_note(f"{self.folder} is kept up to step {self.saved}; the same command goes on from there")
            raise
        finally:
            if log is not None:
                log.close()
        return self.finished - begun

    def _steps(self, begun: int, log: RunLog | None) -> None:
        journal, batches = self.config.journal, self.stage.batches(begun, self.folder, self.on_progress)
        started = time.monotonic()
        for step in range(begun, self.config.steps):
            self._unread.append((step, self._step(step, batches)))
            self.finished, note = step + 1, ""
            rate = (self.finished - begun) / (time.monotonic() - started)
            log_due, checkpoint_due = map(self._due, (journal.log_every_steps, journal.checkpoint_every_steps))
            if log_due or checkpoint_due:
                values = self._read()
                note = f"loss {values['loss']:.4g}"
                if log_due and log is not None:
                    log.write(self.finished, "train", values, steps_per_s=round(rate, 4))
            self.on_progress(Progress(self.finished, self.config.steps, rate, "steps", note=note))
            self._look(log)
            if checkpoint_due:
                self._save()

    # --- one step -------------------------------------------------------------------------------------

    def _step(self, step: int, batches: Iterator[tuple[Any, Any]]) -> Values:
        """All updates of one step; the means of what was measured, this process's part of them."""
        count = len(self.processes.batches(self.config.accumulate))
        parts = [self.stage.losses(step, *next(batches)) for _ in range(count)]
        sums: Values = defaultdict(float)  # type: ignore[arg-type]
        for _ in range(self.stage.updates):
            outputs = [self._backward(next(part), sums) for part in parts]
            sums["norm"] += self.networks.update(step)
            adversary = self.stage.adversary
            if adversary is not None and step >= self.config.discriminator.train_from_step:
                group = self.groups[1]
                group.optimiser.zero_grad()  # of what the networks' loss left there
                for output in outputs:
                    losses = adversary.discriminator_loss(*output.judged)
                    self._record(losses, sums)
                    group.backward(losses["discriminator"], 1 / self.config.accumulate)
                sums["discriminator_norm"] += group.update(step)
        return {name: value / self.stage.updates for name, value in sums.items()}

    def _backward(self, output: Output, sums: Values) -> Output:
        self._record(output.losses, sums)
        self.networks.backward(output.losses["loss"], 1 / self.config.accumulate)
        return Output({}, output.judged)

    def _record(self, losses: Mapping[str, Tensor], sums: Values) -> None:
        for name, value in losses.items():
            sums[name] += value.detach() / self.config.accumulate

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
                    kept = f"the checkpoint of step {self.saved} is kept; --set steps={self.saved} exports it, or"
                    hint = f"{kept} lower optimiser.lr in a new run" if self.saved else NOTHING_KEPT
                    raise TrainingError(f"{self.folder}: the {what} is not a number in step {step + 1}: {hint}")
        return read | {"lr": self.networks.optimiser.param_groups[0]["lr"]}

    # --- what is kept and shown -----------------------------------------------------------------------

    def _save(self) -> None:
        for group in self.groups:
            group.gather()
        if self.processes.writes:
            self.checkpoints.save(self.finished, self.groups)
        self.saved = self.finished

    def _look(self, log: RunLog | None) -> None:
        """Held-out losses and a sheet, where they are due."""
        settings = self.config.journal
        if log is None:
            return
        with torch.no_grad(), self.networks.averaged():
            if settings.held_out_samples and self._due(settings.held_out_every_steps):
                log.write(self.finished, "held_out", self.stage.held_out(range(settings.held_out_samples)))
            if settings.sheet_rows and self._due(settings.sheet_every_steps):
                folder = self.folder / SHEETS
                folder.mkdir(exist_ok=True)
                save_png(folder / f"step-{self.finished:08d}.png", self.stage.sheet(settings.sheet_rows))

    def _due(self, every: int) -> bool:
        return self.finished % every == 0 or self.finished == self.config.steps
