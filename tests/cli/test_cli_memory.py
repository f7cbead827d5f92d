"""Memory that runs out, at every step of a run: one line with what would fit, an exit code, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support.clips import contents, read_video, write_noise

TOLD = "CUDA out of memory. Tried to allocate 168.00 MiB. GPU 0 has a total capacity of 7.60 GiB\nof which"
PLACES = {  # what asks for memory at each step
    "loading": "personalive.runtime.load.load_networks",
    "start": "personalive.engine.backend.Backend.project",
    "reading": "personalive.engine.backend.Backend.motion_tokens",
    "step": "personalive.engine.backend.Backend.denoise",
    "decode": "personalive.engine.backend.Backend.decode",
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``short(step)``: from call ``first`` on, that step finds no memory."""

    def arm(step: str, *, first: int = 1, error: BaseException | None = None) -> None:
        module, _, name = PLACES[step].rpartition(".")
        owner: Any = _found(module)
        real, calls = getattr(owner, name), []

        def fail(*args: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) >= first:
                raise error or torch.OutOfMemoryError(TOLD)
            return real(*args, **named)

        monkeypatch.setattr(owner, name, fail)

    return arm


def _found(path: str) -> Any:
    """A module, or a class in one."""
    import importlib

    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


@pytest.fixture
def animate(run, place, portrait, driving, small_weights) -> Callable[..., tuple[Any, dict]]:
    """The command, and every file as it was before."""

    def command(*arguments: object) -> tuple[Any, dict]:
        before = contents(place)
        options = ("--weights", small_weights, "--framing", "center", "--device", "cpu", "--dtype", "bfloat16")
        return run("animate", portrait, driving, "-o", "video.mp4", *options, *arguments), before

    return command


@pytest.mark.parametrize("step", PLACES)
def test_a_video(animate, place, short, step):
    short(step)
    done, before = animate()
    assert done.code == 1
    assert done.error_lines == ["error: cpu: not enough memory for this model: use --vram 12"]
    assert done.out == ""
    assert contents(place) == before


@pytest.mark.parametrize(
    ("arguments", "ways"),
    [
        (["--vram", "12"], "--vram 8"),
        (["--vram", "8"], "--weights tiny"),
        (["--vram", "8", "--dtype", "float32"], "--dtype bfloat16 or --weights tiny"),
        (["--dtype", "float32"], "--vram 12 or --dtype bfloat16"),
    ],
)
@pytest.mark.parametrize("step", ["loading", "decode"])
def test_what_would_fit_follows_from_what_is_in_use(animate, short, step, arguments, ways):
    short(step)
    done, _ = animate(*arguments)
    assert done.error_lines == [f"error: cpu: not enough memory for this model: use {ways}"]


def test_main_memory_while_loading(animate, place, short):
    short("loading", error=MemoryError())
    done, before = animate()
    ways = "close other programs, or use --vram 12"
    assert done.error_lines == [f"error: main memory: not enough memory for this model: {ways}"]
    assert contents(place) == before


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, "error: cpu: not enough memory for this model: use --vram 12; "),
        (
            RuntimeError("CUDA error: an illegal\nmemory access"),
            "error: unexpected RuntimeError: CUDA error: an illegal ",
        ),
    ],
)
def test_what_was_made_of_a_video_is_kept_and_named_in_the_same_line(animate, place, short, error, line: str):
    write_noise(place / "clip.mp4", 20)
    short("decode", first=6, error=error)  # the first three are the ease-in
    done, before = animate()
    partial = place / "video.partial.mp4"
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert done.error_lines[0].startswith(line)
    assert str(partial) in done.error_lines[0]
    assert contents(place).keys() - before.keys() == {partial.name}
    assert len(read_video(partial).images) == 8


@pytest.mark.parametrize("step", ["loading", "reading"])
def test_a_motion_template(run, place, driving, small_weights, short, step):
    before = contents(place)
    short(step)
    done = run(
        *("motion", "record", driving, "take.safetensors", "--weights", small_weights, "--framing", "center"),
        *("--device", "cpu", "--dtype", "bfloat16", "--vram", "12"),
    )
    assert (done.code, done.out) == (1, "")
    assert done.error_lines == ["error: cpu: not enough memory for this model: use --vram 8"]
    assert contents(place) == before


@pytest.mark.parametrize("step", PLACES)
def test_an_evaluation(run, place, small_weights, short, step):
    before = contents(place)
    short(step)
    done = run(
        *("evaluate", "synthetic:1", "--frames", 4, "-o", "scores", "--no-cross", "--weights", small_weights),
        *("--device", "cpu", "--dtype", "bfloat16", "--vram", "8"),
    )
    assert (done.code, done.out) == (1, "")
    assert done.error_lines == ["error: cpu: not enough memory for this model: use --weights tiny"]
    assert contents(place) == before


def test_a_training_run(run, place, small_weights, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError(TOLD)

    monkeypatch.setattr("personalive.training.run.Loop", fail)
    done = run("train", "motion", "synthetic", "--run", "one", "--preset", "tiny", "--weights", small_weights)
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert "--set batch=1" in done.err
    assert "--vram" not in done.err
    assert not (Path(place) / "one" / "weights").exists()
