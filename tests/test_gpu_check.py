"""The script for a GPU's first quarter of an hour, as far as a CPU goes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", [1, 2, 3])
def test_every_command_of_a_part_is_understood(script: ModuleType, tmp_path: Path, monkeypatch, part: int):
    """The commands' own parsers take them, on a machine with two cards."""
    import torch
    import typer

    import speed
    from personalive.cli.main import app

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = list(script.steps(part, "cuda", tmp_path))
    assert len({step.name for step in found}) == len(found) >= 1
    for step in found:
        program, *options = step.command[1:]
        if (program, options[0]) == ("-m", "personalive"):
            commands: Any = typer.main.get_command(app)
            commands.commands[options[1]].make_context(options[1], options[2:]).close()
        elif program == "benchmarks/speed.py":
            speed.parse(options)
        else:
            assert options[0] in ("pytest", "profile")


def test_what_fails_or_takes_too_long_is_told_and_the_rest_is_run(script: ModuleType, tmp_path: Path, monkeypatch):
    def steps(*_: object) -> list[object]:
        codes = {"well": "pass", "badly": "import sys; sys.exit(3)", "slowly": "import time; time.sleep(60)"}
        return [
            script.Step(name=n, command=[sys.executable, "-c", code], enter="a page") for n, code in codes.items()
        ]

    monkeypatch.setattr(script, "steps", steps)
    script.run(1, "cpu", tmp_path, limit_s=3.0)
    states = [result["state"] for result in json.loads((tmp_path / "part_1.json").read_text())]
    assert states == ["done", "failed, exit code 3", "stopped: the time was over"]
