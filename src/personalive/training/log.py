"""Log of a run: a JSON line per logged step, the same numbers for TensorBoard, and sheets of images."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from personalive.errors import OutputError
from personalive.media.paths import write_whole
from personalive.vision.resize import Square, crop_and_resize

LOG = "log.jsonl"
SCALARS = "tensorboard"
HINT = "no TensorBoard scalars: run `pip install tensorboard`, or --set journal.tensorboard=false"


class RunLog:
    """Log of one run folder. Rows later than the checkpoint that a run resumes from are dropped."""

    def __init__(self, folder: Path, finished_steps: int, scalars: bool, on_message: Callable[[str], None]) -> None:
        """
        Args:
            folder: the run's.
            finished_steps: of the checkpoint; no row of a later step stays.
            scalars: also write TensorBoard events, where the package is installed.
            on_message: called with one line where it is not.

        Raises:
            OutputError: the log cannot be written.
        """
        path = folder / LOG
        try:
            if path.exists():  # at step 0 the run begins again
                rows = path.read_text(encoding="utf-8").splitlines() if finished_steps else []
                write_whole(path, "".join(f"{row}\n" for row in rows if _step(row) <= finished_steps))
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}): give another --run") from error
        self._writer = self._open_scalars(folder / SCALARS, finished_steps, on_message) if scalars else None

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

    def _open_scalars(self, folder: Path, finished_steps: int, on_message: Callable[[str], None]) -> Any:
        if importlib.util.find_spec("tensorboard") is None:
            on_message(HINT)
            return None
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (takes a second)

        return SummaryWriter(str(folder), purge_step=finished_steps + 1 if finished_steps else None)


def _step(line: str) -> float:
    """The step of a row; a line cut off by a killed process belongs to no kept step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


CELL_PX, GAP_PX, BACKGROUND_GREY = 192, 4, 255


def page(rows: Sequence[Sequence[np.ndarray] | np.ndarray]) -> np.ndarray:
    """Rows of (S, S, 3) uint8 images -> one (H, W, 3) uint8 page, each cell 192 px."""
    step = CELL_PX + GAP_PX
    width = max(len(row) for row in rows)
    sheet = np.full((len(rows) * step + GAP_PX, width * step + GAP_PX, 3), BACKGROUND_GREY, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = GAP_PX + y * step, GAP_PX + x * step
            cell = crop_and_resize(image, Square(0, 0, len(image)), CELL_PX)
            sheet[top : top + CELL_PX, left : left + CELL_PX] = cell
    return sheet
