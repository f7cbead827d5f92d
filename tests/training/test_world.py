"""Two real processes that share one optimisation."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import torch
from torch import nn

from personalive.training.loop import World

SCRIPT = """
import json, torch
from torch import nn
from personalive.training.loop import join_world
world = join_world()
first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
(first * (world.rank + 1)).sum().backward()
if world.leads:
    second.sum().backward()
world.average_gradients([first, second])
answer = [world.rank, world.size, first.grad.tolist(), second.grad.tolist(), world.agreed(world.rank + 0.25)]
print(json.dumps(answer))
"""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def test_gradients_are_averaged_and_the_first_process_decides():
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in running]
    for rank, answer in enumerate(told):
        # the first has gradients 1 and 2, the second 1 and none
        assert answer == [rank, 2, [1.5, 1.5], [0.5, 0.5, 0.5], 0.25]


def test_alone_nothing_changes():
    parameter = nn.Parameter(torch.ones(2))
    World().average_gradients([parameter])
    assert parameter.grad is None
    assert World().agreed(0.5) == 0.5
    assert World().leads
