"""Log of a run: one JSON line per logged step, and the same numbers for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from personalive.errors import OutputError

LOG = "log.jsonl"
SCALARS = "tensorboard"
HINT = "no TensorBoard scalars: run `pip install tensorboard`, or --set journal.tensorboard=false"


class Journal:
    """The log of one run folder. Rows later than the checkpoint that a run resumes from are dropped."""

    def __init__(self, folder: Path, finished_steps: int, scalars: bool, say: Callable[[str], None]) -> None:
        """
        Args:
            folder: the run's.
            finished_steps: of the checkpoint; no row of a later step stays.
            scalars: also write TensorBoard events, where the package is installed.
            say: hears one line where it is not.

        Raises:
            OutputError: the log cannot be written.
        """
        self.path = folder / LOG
        try:
            self._keep(finished_steps)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}): give another --run") from error
        self._writer = self._open_scalars(folder / SCALARS, finished_steps, say) if scalars else None

    def write(self, step: int, kind: str, values: Mapping[str, float], **more: Any) -> None:
        """One row: {"step", "kind", values ..., more ...}; ``values`` become scalars too."""
        row = {"step": step, "kind": kind, **values, **more}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def _keep(self, finished_steps: int) -> None:
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _step(line) <= finished_steps]
        if finished_steps == 0:
            kept = []  # the run begins again
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        partial.replace(self.path)

    def _open_scalars(self, folder: Path, finished_steps: int, say: Callable[[str], None]) -> Any:
        if importlib.util.find_spec("tensorboard") is None:
            say(HINT)
            return None
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (takes a second)

        return SummaryWriter(str(folder), purge_step=finished_steps + 1 if finished_steps else None)


def _step(line: str) -> float:
    """The step of a row; a line cut off by a killed process belongs to no kept step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
