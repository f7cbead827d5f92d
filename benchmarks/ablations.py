"""Contribution of each idea of the method to the bundled model, beside the paper's own table.

    python benchmarks/ablations.py --run runs/tiny [--minutes 10] [--cases 4] [--frames 96] [--out out/ablations]

``--run`` is a run of `python -m personalive.training` with its cache. Variants of the temporal modules are trained
from its stage ``motion``, each for ``--minutes`` and from the same start; the other rows change use alone, with the
modules trained as usual here. All are scored by cross-reenactment of held-out people against the ground truth.
Modules that are already in --out are not trained again. Prints the table; writes ablations.md and ablations.json into
--out.
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
from safetensors.torch import load_file, save_file

from personalive import Engine
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
from personalive.training.loop import train, trainable
from personalive.training.presets import STAGES, TinyPreset
from personalive.training.run import Run
from personalive.training.temporal import TemporalModules, TemporalStage
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
THRESHOLDS = (5.0, 10.0, 15.0, 20.0)  # beside the default of 17


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Row of the table."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)  # changed in the model's config
    unet: dict[str, Any] = field(default_factory=dict)  # and in the U-Net's
    weights: str | None = None  # source of the temporal modules: NONE, or the row of that name; None: its own
    rolled_out: bool = True
    threshold: float | None = None  # of keyframes
    detail: bool = True  # whether finished frames take theirs from the portrait

    def preset(self) -> TinyPreset:
        """The bundled model's shape with the changes."""
        preset = TinyPreset()
        model = dataclasses.replace(preset.model, **self.model)
        return dataclasses.replace(preset, model=model, unet=dataclasses.replace(preset.unet, **self.unet))


def _variants() -> list[Variant]:
    """All rows, those whose weights others use before them."""
    schedule = TinyPreset().model.schedule
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
        Variant(name="without sliding training (ST)", rolled_out=False),
        Variant(name="without temporal modules", weights=NONE),
        Variant(name="decoder alone, no detail of the portrait (ours)", weights="full", detail=False),
        *(Variant(name=f"keyframe threshold {tau:g}", weights="full", threshold=tau) for tau in THRESHOLDS),
        *(Variant(name=name, model={"schedule": changed}, weights="full") for name, changed in fewer.items()),
    ]


def main() -> int:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run that has done stage motion")
    parser.add_argument("--minutes", type=float, default=10.0, help="training of each variant")
    parser.add_argument("--steps", type=int, default=STAGES["temporal"].steps, help="at most so many steps of it")
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
    """The run's networks up to stage motion, and the temporal modules of this variant."""
    run = Run(args.run, args.device, steps=None, minutes=None, groups=1, say=print, preset=variant.preset())
    networks = run.load("vae", "motion_extractor", "motion_encoder", "motion")
    modules = TemporalModules(networks.denoising_unet)
    if variant.weights == NONE:
        return networks
    path = args.out / f"{(variant.weights or variant.name).replace(' ', '_')}.safetensors"
    if not path.exists():
        _train(variant, run, modules, path, args)
    modules.load_state_dict(load_file(path))
    return networks


def _train(variant: Variant, run: Run, modules: TemporalModules, path: Path, args: argparse.Namespace) -> None:
    config = dataclasses.replace(STAGES["temporal"], minutes=args.minutes, steps=args.steps)
    print(f"{variant.name}: training, {config}", flush=True)
    trained = trainable([modules])
    loss = TemporalStage(run.networks, run.effect(), config.batch, config.frames, rolled_out=variant.rolled_out)
    average = train(variant.name, trained, loss, config, args.out / "log.jsonl")
    save_file({name: tensor.cpu().contiguous() for name, tensor in average[0].state_dict().items()}, path)


def _half(networks: Networks) -> Networks:
    for module in networks.modules().values():
        module.to(torch.bfloat16)
    return networks


# --- the table ----------------------------------------------------------------------------------------------


def _table(rows: dict[str, dict[str, float]], args: argparse.Namespace) -> str:
    own = "| | " + " | ".join(COLUMNS) + " |"
    setup = (
        f"{args.cases} people, {args.frames} frames, cross-reenactment of synthetic heads; temporal modules trained"
    )
    lines = [f"{setup} for at most {args.minutes:g} minutes and {args.steps} steps each.", ""]
    lines += [own, "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(COLUMNS[key].format(row[key]) for key in COLUMNS) + " |")
    lines += ["", "The paper's, on LV100:", "", "| | ID-SIM | AED | APD | FVD | tLP |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | " + " | ".join(map(str, figures)) + " |" for name, figures in PAPER.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
