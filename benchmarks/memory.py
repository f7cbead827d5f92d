"""Device memory of a stream of the released model in each preset: computed, not measured.

    python benchmarks/memory.py [--dtype float16] [--output out/memory.json]

Networks in the released shape are run at 512 px on torch's meta device, where nothing is allocated, and the bytes of
all tensors that are alive at the worst moment of each step are counted. Attention counts as fused: it keeps no table
of weights. What kernels take for themselves, what the allocator loses between blocks, and the device's own context
are not in it. Prints the tables; --output also writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from personalive.config import PRESETS, KeyframeConfig
from personalive.engine.backend import Backend
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.runtime.memory import offloaded
from timing.seeded import released_shape, seeded_networks

GB = 1e9


class _FusedAttention(TorchFunctionMode):
    """Attention that gives its result and keeps nothing else, as fused kernels do; on meta torch writes it out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=args[0].device)
        return func(*args, **(kwargs or {}))


class _Alive(TorchDispatchMode):
    """Counter of the bytes of tensors made inside that are still held, and its peak."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = set(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name not in self._known:
            self._known.add(name)
            self.now += size
            weakref.finalize(storage, self._drop, name, size)

    def _drop(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a stream: bytes of its tensors at the worst moment, and the offloaded network that it needs."""

    name: str
    alive: int
    needs: str | None = None


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Memory of a preset, in bytes."""

    preset: str
    weights: int  # that stay on the device
    stream: int  # one stream's state with all keyframes
    largest_step: str
    peak: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """All of it. Sizes in bytes."""

    dtype: str
    weights: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    presets: list[Computed] = field(default_factory=list)


class Counter:
    """Counter of the bytes of a stream's steps on the meta device."""

    def __init__(self, networks: Networks) -> None:
        self.networks, self.backend = networks, Backend(networks)
        tensors = [self.backend.timesteps(self.networks.config.window_frames)]
        for module in networks.modules().values():
            tensors += [*module.parameters(), *module.buffers()]
        self._known = {tensor.untyped_storage()._cdata for tensor in tensors}
        with torch.no_grad():
            self.attended = self._attended(1 + KeyframeConfig.maximum)
        self._known |= {t.untyped_storage()._cdata for kv in self.attended.values() for t in kv}

    @property
    def stream_bytes(self) -> int:
        """One stream's state with all keyframes: what is attended to, and pose features; the rest is below 5 MB."""
        pose = self.empty(1, 320, self.networks.config.warmup_frames, 64, 64)
        return pose.nbytes + sum(tensor.nbytes for kv in self.attended.values() for tensor in kv)

    def alive(self, run: Callable[[], Any]) -> int:
        """Bytes at the worst moment of ``run``, weights and what is attended to not counted."""
        with torch.no_grad(), _FusedAttention(), _Alive(self._known) as counted:
            run()
        return counted.peak

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Tensor on the meta device, in the networks' dtype by default."""
        return torch.empty(shape, dtype=dtype or self.backend.dtype, device="meta")

    def steps(self, decoded: int) -> list[Step]:
        """All steps of a stream, worst cases; ``decoded`` frames are decoded at a time."""
        backend, empty, window = self.backend, self.empty, self.networks.config.window_frames
        runs: dict[str, Callable[[], Any]] = {
            "portrait: image encoder": lambda: self.networks.clip(pixel_values=empty(1, 3, 224, 224)),
            "portrait: VAE encoder": lambda: backend.encode(empty(1, 3, 512, 512)),
            "portrait, keyframe: reference U-Net": lambda: self._attended(1),
            "motion of 4 frames": lambda: backend.motion_tokens(empty(4, 3, 224, 224)),
            "poses of the first 16 frames": lambda: backend.guide(empty(window, 3, 512, 512)),
            "denoiser": self._denoise,
            f"decoder, {decoded} frames at a time": lambda: self._decode(decoded),
        }
        needs = {"portrait: image encoder": "clip", "portrait: VAE encoder": "vae.encoder"}
        return [Step(name=name, alive=self.alive(run), needs=needs.get(name)) for name, run in runs.items()]

    def _attended(self, images: int) -> dict[str, KV]:
        """Keys and values of so many reference images."""
        projected = self.backend.project(self.empty(1, 4, 64, 64), self.empty(1, 1, 768))
        return {name: KV(*(torch.cat([t] * images, dim=1) for t in kv)) for name, kv in projected.items()}

    def _denoise(self) -> None:
        window = self.networks.config.window_frames
        self.backend.denoise(
            self.empty(1, 4, window, 64, 64),
            context=self.empty(1, 1, 768),
            motion=self.empty(1, window, 32, 16),
            pose=self.empty(1, 320, window, 64, 64),
            reference=self.attended,
        )

    def _decode(self, count: int) -> Any:
        """Decode while the denoiser's output is still held."""
        left = self.empty(1, 320, self.networks.config.window_frames, 64, 64)
        return left, self.backend.decode(self.empty(count, 4, 64, 64, dtype=torch.float32))


def sizes(networks: Networks) -> dict[str, int]:
    """Bytes of each network, the VAE's encoder apart."""
    found = {}
    for name, module in networks.modules().items():
        found[name] = sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
    encoder = sum(t.nbytes for t in networks.vae.encoder.parameters())
    return {"vae.encoder": encoder, **found, "vae": found["vae"] - encoder}


def estimate(dtype: torch.dtype = torch.float16) -> Estimate:
    """Count everything."""
    networks = seeded_networks(released_shape(), device=torch.device("meta"), dtype=dtype)
    counter, weights = Counter(networks), sizes(networks)
    found = Estimate(dtype=str(dtype).removeprefix("torch."), weights=weights)
    for preset in PRESETS.values():
        away = {name: weights[name] for name in offloaded(networks.config, preset)}
        staying = sum(weights.values()) - sum(away.values())
        steps = counter.steps(preset.decode_frames or networks.config.chunk_frames)
        found.steps.extend(step for step in steps if step not in found.steps)
        wanted = {step.name: step.alive + away.get(step.needs or "", 0) for step in steps}
        largest = max(wanted, key=lambda name: wanted[name])
        peak = staying + counter.stream_bytes + wanted[largest]
        computed = Computed(
            preset=preset.name, weights=staying, stream=counter.stream_bytes, largest_step=largest, peak=peak
        )
        found.presets.append(computed)
    return found


def tables(found: Estimate) -> str:
    """In Markdown, decimal gigabytes."""
    lines = ["| network | GB |", "|---|---|"]
    lines += [f"| {name} | {size / GB:.2f} |" for name, size in found.weights.items()]
    lines += [
        f"| all | {sum(found.weights.values()) / GB:.2f} |",
        "",
        "| step | GB beside the weights |",
        "|---|---|",
    ]
    lines += [f"| {step.name} | {step.alive / GB:.2f} |" for step in found.steps]
    lines += ["", "| `--vram` | weights on the device | one stream | largest step | peak |", "|---|---|---|---|---|"]
    for one in found.presets:
        parts = (f"{size / GB:.2f}" for size in (one.weights, one.stream))
        lines.append(f"| {one.preset} | {' | '.join(parts)} | {one.largest_step} | {one.peak / GB:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--output", type=Path, help="also write JSON there")
    arguments = parser.parse_args()
    found = estimate(getattr(torch, arguments.dtype))
    print(tables(found))
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
