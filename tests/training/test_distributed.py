"""Runs of several processes: the same losses as of one, resume on another number, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from personalive.cli.main import main
from personalive.errors import InputError
from personalive.training.distributed import ProcessGroup
from personalive.training.presets import PAPER_STAGES, Stage
from support.distributed_run import run
from support.small_model import write_small_model
from support.toy_run import QUIET, rows

pytestmark = pytest.mark.xdist_group("distributed")  # one worker makes the folders, once
STEPS = 2
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "default",  # torchrun's own imports warn
}


LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module", params=[STEPS, pytest.param(20, marks=pytest.mark.full)])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, Path]:
    """The same steps of all stages by one process and by two, which go on with what one process began of the last."""
    steps, one, two = request.param, tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for stage in PAPER_STAGES:
        run(one, stage, steps)
    run(two, "stream", steps // 2)
    launch = [sys.executable, "-m", "support.distributed_run", str(two), str(steps), *PAPER_STAGES]
    done = subprocess.run(launch, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    return steps, one, two


@pytest.mark.parametrize("stage", PAPER_STAGES)
def test_losses_are_those_of_one_process(folders: tuple[int, Path, Path], stage: Stage):
    steps, *runs = folders
    alone, shared = (rows(folder / stage) for folder in runs)
    assert len(alone) == steps
    if stage == "distill":
        assert {"adversarial", "discriminator", "discriminator_norm"} < alone[-1].keys()
    for one, two in zip(alone, shared, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            if name != "kind":
                assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), (one["step"], name)


@pytest.mark.full
def test_a_killed_process_ends_all_and_one_process_goes_on(tmp_path: Path):
    weights = write_small_model(tmp_path / "weights")
    options = [part for value in (*QUIET, "accumulate=2", "steps=6", "data.people=2") for part in ("--set", value)]
    train = ["train", "motion", "synthetic", "--run", str(tmp_path / "run"), "--weights", str(weights), *options]
    train += ["--preset", "tiny", "--device", "cpu"]
    command = [*LAUNCH, "-m", "--", "personalive", *train]
    log, end = tmp_path / "run" / "log.jsonl", time.monotonic() + 240
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as started:
        while not log.exists() or log.read_text().count("\n") < 3:
            assert time.monotonic() < end
            assert started.poll() is None
            time.sleep(0.02)
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        os.kill(max(map(int, children)), signal.SIGKILL)
        _, told = started.communicate(timeout=120)
    assert started.returncode != 0
    assert "the same command goes on" in told  # by the one that was left; what follows is torchrun's own report
    assert not (tmp_path / "run" / "weights").exists()
    assert main(train) == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, 7))
    assert (tmp_path / "run" / "weights").is_dir()


def test_batches_are_shared_in_turn():
    assert [list(ProcessGroup(rank, 3).batches(6)) for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(InputError, match=r"1 batches per step cannot be shared by 2 processes: --set accumulate=2"):
        ProcessGroup(0, 2).batches(1)
