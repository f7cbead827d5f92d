"""Run as a program: a toy run on two processes, started as ``torchrun`` does but forked, so that one imports torch.

    python -m support.distributed_run FOLDER STEPS STAGE...

Each stage has a folder of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401
import transformers.models.clip.modeling_clip  # noqa: F401
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from personalive.training.config import TrainConfig
from personalive.training.distributed import join_processes
from personalive.training.loop import Loop
from personalive.training.presets import Stage
from support.toy_run import toy_config, toy_context

SHARED = ("batch=2", "accumulate=2", "journal.checkpoint_every_steps=5", "compute.shard_optimiser=true")
OWN: dict[Stage, tuple[str, ...]] = {
    "motion": ("average.on=true",),
    "distill": ("discriminator.generator_from_step=1",),
    "stream": ("batch=1", "stream.frames=20", "stream.gradient_windows=0,1", "optimiser.lr=1e-3"),
}


def config_of(stage: Stage, steps: int) -> TrainConfig:
    return toy_config(stage, *SHARED, *OWN[stage], f"steps={steps}", f"{stage}.inference_form=false")


def run(folder: Path, stage: Stage, steps: int) -> None:
    """Train one stage, alone or as one of the processes that ``torchrun`` started."""
    processes, _ = join_processes("cpu")
    (folder / stage).mkdir(parents=True, exist_ok=True)
    context = toy_context(config_of(stage, steps), processes=processes)
    Loop(context, folder / stage, lambda progress: None, lambda line: None).run()


def run_all(folder: str, steps: str, *stages: Stage) -> None:
    for stage in stages:
        run(Path(folder), stage, int(steps))


if __name__ == "__main__":
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        start_method="fork",
    )  # fmt: skip
    elastic_launch(config, run_all)(*sys.argv[1:])
