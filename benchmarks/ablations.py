"""Contribution of each idea of the method to the bundled model, beside the paper's own table.

    python benchmarks/ablations.py [--weights tiny] [--steps 400] [--cases 4] [--frames 96] [--out out/ablations]

Variants of the temporal modules are trained from nothing on ``--weights`` by `personalive train stream`, each for
``--steps``; the other rows change use alone, with the modules trained as usual here. All are scored by
cross-reenactment of held-out people against the ground truth. Runs that are already in --out go on where they are.
Prints the table; writes ablations.md and ablations.json into --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from personalive import Engine
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks, save_networks
from personalive.config import KeyframeConfig
from personalive.errors import PersonaLiveError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Case, DatasetOptions, Sample, SyntheticHeads
from personalive.evaluation.methods import COPY, Baseline, EngineMethod
from personalive.evaluation.metrics.accumulators import (
    AngleTracking,
    ExpressionTracking,
    ImageMetrics,
    Metric,
    Stability,
)
from personalive.evaluation.metrics.functional import l1
from personalive.evaluation.runner import score
from personalive.models.networks import Networks
from personalive.training.overrides import resolve
from personalive.training.presets import SYNTHETIC
from personalive.training.run import train
from personalive.training.scratch import build_networks
from personalive.training.shapes import SHAPES, ModelShape
from personalive.vision.resize import ImageArray

START_FRAMES = 16  # those that the ease-in can change
PAPER = {  # ID-SIM, AED, APD, FVD, tLP on LV100 (paper, ablation table)
    "full": (0.698, 0.703, 0.030, 520.6, 12.83),
    "causal chunk attention": (0.689, 0.709, 0.032, 537.0, 12.83),
    "chunks of 2": (0.660, 0.713, 0.031, 520.2, 12.14),
    "without interpolated start (MII)": (0.680, 0.703, 0.031, 511.5, 13.06),
    "without keyframes (HKM)": (0.728, 0.710, 0.031, 535.6, 13.27),
    "without sliding training (ST)": (0.549, 0.785, 0.040, 678.8, 10.05),
}
COLUMNS = {  # with their format
    **dict.fromkeys(("l1", "start_l1", "flicker"), "{:.4f}"),
    "gain": "{:.1%}",
    **dict.fromkeys(("yaw", "pitch", "mouth", "blink"), "{:.2f}"),
    **dict.fromkeys(("keyframes", "fps"), "{:.1f}"),
}
NONE = "none"
PRESET = "tiny"
THRESHOLDS = (5.0, 10.0, 15.0, 20.0)  # beside the default of 17


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Row of the table."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)  # changed in the model's config
    unet: dict[str, Any] = field(default_factory=dict)  # and in the U-Net's
    weights: str | None = None  # source of the temporal modules: NONE, or the row of that name; None: its own
    threshold: float | None = None  # of keyframes
    detail: bool = True  # whether finished frames take theirs from the portrait

    def shape(self) -> ModelShape:
        """The bundled model's shape with the changes."""
        shape = SHAPES[PRESET]
        model = dataclasses.replace(shape.model, **self.model)
        return dataclasses.replace(shape, model=model, unet=dataclasses.replace(shape.unet, **self.unet))


def _variants() -> list[Variant]:
    """All rows, those whose weights others use before them."""
    schedule = SHAPES[PRESET].model.schedule
    fewer = {
        f"{len(levels)} level{'s' * (len(levels) > 1)}": dataclasses.replace(schedule, levels=levels, step=step)
        for levels, step in (((1, 3), 2), ((3,), 4))
    }
    return [
        Variant(name="full"),
        Variant(name="causal chunk attention", unet={"temporal_attention": "causal"}),
        Variant(name="chunks of 2", model={"chunk_frames": 2}),
        Variant(name="without interpolated start (MII)", model={"interpolated_start": False}, weights="full"),
        Variant(name="without keyframes (HKM)", weights="full", threshold=math.inf),
        Variant(name="without temporal modules", weights=NONE),
        Variant(name="decoder alone, no detail of the portrait (ours)", weights="full", detail=False),
        *(Variant(name=f"keyframe threshold {tau:g}", weights="full", threshold=tau) for tau in THRESHOLDS),
        *(Variant(name=name, model={"schedule": changed}, weights="full") for name, changed in fewer.items()),
    ]


def main() -> int:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny", help="model of the bundled shape")
    parser.add_argument("--steps", type=int, default=400, help="training of each variant")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for it, as of `personalive train`")
    parser.add_argument("--cases", type=int, default=4, help="held-out people")
    parser.add_argument("--frames", type=int, default=96, help="frames per person")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("out/ablations"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        rows = {variant.name: _row(variant, args) for variant in _variants()}
    except PersonaLiveError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    table = _table(rows, args)
    (args.out / "ablations.json").write_text(json.dumps({"options": _plain(args), "rows": rows}, indent=2) + "\n")
    (args.out / "ablations.md").write_text(table)
    print(table)
    return 0


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


# --- one variant --------------------------------------------------------------------------------------------


class StartL1:
    """L1 to the ground truth over the first frames."""

    def __init__(self) -> None:
        self._errors: list[float] = []

    def update(self, sample: Sample, output: ImageArray) -> None:
        """See ``Metric``."""
        if len(self._errors) < START_FRAMES and sample.truth is not None:
            self._errors.append(l1(output, sample.truth))

    def compute(self) -> dict[str, float]:
        """See ``Metric``."""
        return {"start_l1": fmean(self._errors)}


def _row(variant: Variant, args: argparse.Namespace) -> dict[str, float]:
    networks = _half(_networks(variant, args))
    engine = Engine(networks if variant.detail else dataclasses.replace(networks, detail=None))
    print(f"{variant.name}: scoring", flush=True)
    options = DatasetOptions(size_px=engine.image_size, frames=args.frames)
    cases = SyntheticHeads(f"synthetic:{args.cases}", options).cases("cross")

    def metrics(case: Case) -> list[Metric]:
        assert case.person is not None
        tracking = [AngleTracking(engine), ExpressionTracking(case.person)]
        return [ImageMetrics(), StartL1(), Stability(case.portrait()), *tracking]

    method = EngineMethod(
        engine,
        keyframe_threshold=KeyframeConfig.threshold if variant.threshold is None else variant.threshold,
        warmup_calls=min(EvaluationConfig.timing_warmup_calls, args.frames // engine.chunk_frames - 2),
    )
    found = score(method, cases, metrics) | method.speed()
    copied = score(Baseline(COPY), cases, lambda _case: [ImageMetrics()])
    found |= {"gain": 1 - found["l1"] / copied["l1"], "keyframes": fmean(method.keyframes)}
    return {name: found.get(name, math.nan) for name in COLUMNS}


def _networks(variant: Variant, args: argparse.Namespace) -> Networks:
    """The model in the variant's form, with the temporal modules of its own training or of another row's."""
    name = (variant.weights or variant.name).replace(" ", "_")
    begin, run = args.out / f"{name}-begin", args.out / name
    if variant.weights is None:
        if not begin.exists():
            save_networks(_untrained(variant, args.weights), begin)
        config = resolve("stream", PRESET, pairs=[f"steps={args.steps}", *args.set])
        print(f"{variant.name}: training, {args.steps} steps", flush=True)
        train(config, data=SYNTHETIC, run=run, weights=str(begin), device=args.device)
    if variant.weights == NONE:
        return _untrained(variant, args.weights)
    return _in_shape(variant.shape(), load_networks(CheckpointFolder.open(run / "weights")))


def _untrained(variant: Variant, weights: str) -> Networks:
    """The model of ``weights`` with fresh temporal modules."""
    return _in_shape(variant.shape(), load_networks(CheckpointFolder.open(weights)), leave_out=".temporal_modules.")


def _in_shape(shape: ModelShape, source: Networks, leave_out: str = "\0") -> Networks:
    """The networks of ``source`` under another config; parameters with ``leave_out`` in their name are fresh."""
    networks = build_networks(shape)
    for part, module in networks.modules().items():
        state = {k: v for k, v in source.modules()[part].state_dict().items() if leave_out not in k}
        module.load_state_dict(state, strict=False)
        module.eval().requires_grad_(False)
    networks.vae.register_to_config(scaling_factor=source.vae.config.scaling_factor)
    return networks


def _half(networks: Networks) -> Networks:
    for module in networks.modules().values():
        module.to(torch.bfloat16)
    return networks


# --- the table ----------------------------------------------------------------------------------------------


def _table(rows: dict[str, dict[str, float]], args: argparse.Namespace) -> str:
    own = "| | " + " | ".join(COLUMNS) + " |"
    setup = f"{args.cases} people, {args.frames} frames, cross-reenactment of synthetic heads"
    lines = [f"{setup}; temporal modules trained for {args.steps} steps each.", ""]
    lines += [own, "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(COLUMNS[key].format(row[key]) for key in COLUMNS) + " |")
    lines += ["", "The paper's, on LV100:", "", "| | ID-SIM | AED | APD | FVD | tLP |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | " + " | ".join(map(str, figures)) + " |" for name, figures in PAPER.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
