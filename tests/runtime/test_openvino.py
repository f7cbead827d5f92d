"""OpenVINO in a process that handles signals, as one that answers Ctrl-C does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from personalive.runtime.openvino import _BySteps
from personalive.runtime.programs import ProgramSpec

SCRIPT = """
import gc, os, signal, sys, threading
from pathlib import Path

import torch

from personalive.runtime.openvino import read, write
from personalive.runtime.programs import ProgramSpec


class Doubled(torch.nn.Module):
    def forward(self, x):
        return (2 * x,)


specs = {"doubled": ProgramSpec(Doubled(), {"x": torch.ones(1, 4)}, ("y",))}
write(specs, Path(sys.argv[1]), lambda share: None)
programs = [read(specs, Path(sys.argv[1]), precision=torch.float32, threads=1)]
print(programs[0]["doubled"](torch.ones(1, 4))[0].tolist())
thread = threading.Thread(target=lambda: (programs.clear(), gc.collect()))
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_is_handled_after_another_thread_dropped_the_programs(tmp_path: Path) -> None:
    """On a processor with AMX this was a segmentation fault, at the signal or at some later time."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["[[2.0, 2.0, 2.0, 2.0]]", "handled"]), done.stderr


def test_the_denoiser_is_compiled_once_for_each_number_of_steps_whatever_sessions_come():
    made: list[int] = []
    spec = ProgramSpec(nn.Identity(), {"latents": torch.zeros(1, 2, 16)}, ("y",), {"latents": {2: ("s", 4)}})
    program = _BySteps(spec, lambda steps: made.append(steps) or (lambda *tensors: tensors))
    for steps in (4, 1, 2, 4, 1, 2, 4):
        assert program(torch.zeros(1, 2, 4 * steps))[0].shape[2] == 4 * steps
    assert made == [4, 1, 2]
