"""A dataset's portraits and driving films as files, for other methods to work on."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

from personalive.errors import InputError, OutputError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Case
from personalive.media import VideoWriter, save_png
from personalive.media.config import MediaConfig
from personalive.media.paths import reason, temporary_beside


def check_inputs_folder(folder: Path) -> Path:
    """The folder that inputs will be written to. Creates nothing.

    Raises:
        OutputError: it holds something already, or cannot be made there.
    """
    target = folder.absolute()
    if not target.parent.is_dir():
        raise OutputError(f"{folder}: the folder {target.parent} does not exist: create it or choose another")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{folder}: is there already: choose another folder for --inputs")
    return target


def write_inputs(cases: list[Case], folder: Path) -> list[str]:
    """Write ``NAME.png`` (portrait) and ``NAME.mp4`` (driving film, square, nearly lossless) of each case.

    The folder appears whole or not at all.

    Returns:
        A line for each case that could not be read.

    Raises:
        OutputError: as ``check_inputs_folder``, or the disk is full.
    """
    target = check_inputs_folder(folder)
    fresh, skipped = temporary_beside(target), []
    try:
        fresh.mkdir()
        for case in cases:
            try:
                _write_case(case, fresh)
            except InputError as error:
                skipped.append(f"{case.name} ({case.kind}, inputs): {error}")
        if target.exists():
            target.rmdir()
        fresh.rename(target)
    except OSError as error:
        raise OutputError(f"{folder}: could not be written ({reason(error)}): choose another folder") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return skipped


def _write_case(case: Case, folder: Path) -> None:
    portrait = case.portrait()
    side = portrait.shape[0]
    step, crf = Fraction(1, MediaConfig.default_fps), EvaluationConfig.inputs_crf
    with VideoWriter(folder / f"{case.name}.mp4", side, side, crf=crf) as film:
        before = None
        for moment in case.moments():
            if before is not None:
                step = moment.time - before.time
                film.write(before.driver, before.time, step)
            before = moment
        if before is not None:
            film.write(before.driver, before.time, step)
    save_png(folder / f"{case.name}.png", portrait)
