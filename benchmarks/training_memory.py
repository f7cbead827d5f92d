"""Memory that one device needs to train the released shapes, computed on the meta device: nothing is allocated.

    python benchmarks/training_memory.py [--output out/training_memory.json]

Exact: weights, gradients and optimiser's state of every stage of the `full` preset, on 1, 2 and 8 processes with
`compute.shard_optimiser`. Activations are the tensors that autograd keeps for one batch of one sample at 512 px in
half precision: what passes between levels, and the largest level at once, which is computed again in the backward
pass. What cuDNN and the allocator add is not in it: nobody has run this size yet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personalive.checkpoints.layout import parts_of
from personalive.checkpoints.networks import build_part
from personalive.models import unet as unet_module
from personalive.models.networks import Networks
from personalive.training.discriminator import Discriminator
from personalive.training.overrides import resolve
from personalive.training.parameters import choose
from personalive.training.presets import PAPER_STAGES, Stage
from personalive.training.shapes import SHAPES
from timing.seeded import released_shape

PROCESSES = (1, 2, 8)
CARDS_GB = (24, 40, 80)
FLOAT, HALF, GB = 4, 2, 1e9
ADAM_VALUES = 2  # per parameter


def main() -> int:
    """Compute and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()
    networks = full_networks()
    rows = {stage: stage_memory(networks, stage) for stage in PAPER_STAGES}
    print(table(rows))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def full_networks() -> Networks:
    """The released shapes on the meta device."""
    folder = released_shape()
    parts: dict[str, Any] = {part: build_part(folder, part).to("meta") for part in parts_of(folder.config)}
    return Networks(config=folder.config, unet_config=SHAPES["full"].unet, **parts)


def stage_memory(networks: Networks, stage: Stage) -> dict[str, float]:
    """Gigabytes of one stage, by what they are for and by the number of processes."""
    config = resolve(stage, "full")
    trained = sum(parameter.numel() for parameter in choose(networks, stage).values())
    weights = sum(p.numel() for module in networks.modules().values() for p in module.parameters())
    if stage != "motion":
        adversary = Discriminator(networks.config.image_size_px, config.discriminator)
        extra = sum(parameter.numel() for parameter in adversary.parameters())
        trained, weights = trained + extra, weights + extra
    found = {
        "weights": weights * FLOAT / GB,
        "gradients": trained * FLOAT / GB,
        "optimiser": trained * ADAM_VALUES * FLOAT / GB,
        "activations": activations(networks, stage) / GB,
    }
    fixed = found["weights"] + found["gradients"] + found["activations"]
    return found | {f"on {n}": fixed + found["optimiser"] / n for n in PROCESSES}


def activations(networks: Networks, stage: Stage) -> float:
    """Bytes that autograd keeps for one sample: between levels, and inside the largest one."""
    config = networks.config
    side = config.image_size_px // 8
    frames = config.window_frames if stage == "stream" else 1
    between, levels = (
        kept(networks, frames, side, recompute=True)[0],
        kept(networks, frames, side, recompute=False)[1],
    )
    latent = torch.empty(1, networks.unet_config.in_channels, side, side, device="meta", dtype=torch.bfloat16)
    if stage != "stream":
        context = latent.new_empty(1, 1, networks.unet_config.context_width)
        time = torch.zeros(1, 1, dtype=torch.long, device="meta")
        with counting() as count:
            networks.reference_unet.to(torch.bfloat16)(latent, time, context, recompute=True)
        between += count.total
    decoder = 0.0
    if stage != "motion":  # frame by frame, each computed again
        with counting() as count:
            networks.vae.decoder.to(torch.bfloat16)(latent.requires_grad_(True))
        decoder = count.total
    return between + max(*levels, decoder)


def kept(networks: Networks, frames: int, side: int, *, recompute: bool) -> tuple[float, list[float]]:
    """Bytes kept by one pass of the denoiser, in all and by level."""
    unet, config = networks.denoising_unet.to(torch.bfloat16), networks.unet_config
    tokens = networks.config.motion_encoder

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta", dtype=torch.bfloat16).requires_grad_(True)

    real, levels = unet_module._level, []

    def watched(*arguments: Any) -> Any:
        before = count.total
        made = real(*arguments)
        levels.append(count.total - before)
        return made

    unet_module._level = watched
    try:
        with counting() as count:
            unet(
                empty(1, config.in_channels, frames, side, side),
                torch.zeros(1, frames, dtype=torch.long, device="meta"),
                context=empty(1, 1, config.context_width),
                motion=empty(1, frames, tokens.tokens, tokens.token_width),
                pose=empty(1, config.channels[0], frames, side, side),
                reference=None,
                temporal=frames > 1,
                recompute=recompute,
            )
    finally:
        unet_module._level = real
    return count.total, levels


class Count:
    """Bytes of different storages."""

    def __init__(self) -> None:
        self.total, self._seen = 0.0, set[int]()

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd keeps, once, unless it is a parameter."""
        if not isinstance(tensor, nn.Parameter) and id(tensor) not in self._seen:
            self._seen.add(id(tensor))
            self.total += tensor.numel() * tensor.element_size()
        return tensor


@contextmanager
def counting() -> Iterator[Count]:
    """Count what autograd keeps inside."""
    count = Count()
    with torch.autograd.graph.saved_tensors_hooks(count.add, lambda tensor: tensor):
        yield count


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    columns = list(next(iter(rows.values())))
    lines = ["| stage | " + " | ".join(columns) + " | fits |", "|---" * (len(columns) + 2) + "|"]
    for stage, row in rows.items():
        fits = "; ".join(f"{n}: {_fits(row[f'on {n}'])}" for n in PROCESSES)
        lines.append(f"| {stage} | " + " | ".join(f"{row[name]:.1f}" for name in columns) + f" | {fits} |")
    return "\n".join(lines)


def _fits(gigabytes: float) -> str:
    return next((f"{card} GB" for card in CARDS_GB if gigabytes < card), "none")


if __name__ == "__main__":
    raise SystemExit(main())
