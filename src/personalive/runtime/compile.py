"""torch.compile over the denoiser's repeated blocks and the decoder, opt-in.

Compiling blocks and not the whole network keeps it to minutes: blocks of one kind and shape share their code, and
torch's own cache keeps it between runs. Shapes are static. What depends on the number of reference images, the
attention to them, is torch's fused kernel already and stays as it is, so nothing is compiled while a stream runs.
Fewer denoising steps than the model's own would be other shapes, minutes again: they are run without the compiler.
"""

from __future__ import annotations

import logging
import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from personalive.engine.backend import Backend, network_calls
from personalive.models.attention import FeedForward, FrameModule
from personalive.models.blocks import ResnetBlock
from personalive.models.networks import Networks
from personalive.runtime.programs import ProgramSpec, program_specs

_LOG = logging.getLogger(__name__)
NOTICE = "compiling with torch.compile: minutes the first time, shorter afterwards by torch's own cache"
_REPEATED = (ResnetBlock, FeedForward, FrameModule)
_MAX_VARIANTS = 64  # shapes of one kind of block; torch gives up silently above 8
_COMPILER = "inductor"


def missing_for_compile(device: torch.device) -> str | None:
    """One clause that names what torch.compile lacks here and the remedy; None where it can run."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if device.type == "cpu":
        has_cxx = os.environ.get("CXX") or any(shutil.which(name) for name in ("g++", "clang++", "cl"))
        return None if has_cxx else "torch.compile needs a C++ compiler: install g++, or use --backend eager"
    if device.type != "cuda":
        return None
    if not find_spec("triton"):
        return "torch.compile needs Triton: pip install triton, or use --backend eager"
    if compiler is None:
        return "Triton needs a C compiler: install gcc or clang, or use --backend eager"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Triton needs Python.h: install Python's headers (python3-dev), or use --backend eager"
    return None


def compile_blocks(networks: Networks, on_progress: Callable[[float], None], decode_frames: int) -> Backend:
    """Compile the repeated blocks in place and run each shape once.

    Args:
        networks: in eval mode on their device; their blocks are compiled from now on, whoever calls them.
        on_progress: called with the share done, 0 to 1.
        decode_frames: images that are decoded at a time.
    """
    blocks = [module for module in networks.denoising_unet.modules() if isinstance(module, _REPEATED)]
    runs = [("denoise", 1), ("decode", decode_frames)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own modules warn of deprecations
        for block in (*blocks, networks.decoder.decoder):
            block.compile(dynamic=False, backend=_COMPILER)
        specs = program_specs(networks)
        with torch._dynamo.config.patch(recompile_limit=_MAX_VARIANTS):
            for number, (name, count) in enumerate(runs):
                on_progress(number / len(runs))
                _run_once(specs[name], count)
    on_progress(1.0)
    denoise, frames = network_calls(networks)["denoise"].module, networks.config.window_frames
    return Backend(networks, {"denoise": _Denoise(denoise, frames)}, name="compile")


class _Denoise:
    """The denoiser for any number of steps; by the compiled code where that was made for it."""

    def __init__(self, module: nn.Module, frames: int) -> None:
        """
        Args:
            frames: in flight, which the code was made for.
        """
        self._module, self._frames, self._warned = module, frames, False

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        if tensors[0].shape[2] == self._frames:
            return self._module(*tensors)
        if not self._warned:
            _LOG.warning("compile: its code is for all denoising steps; fewer are run without the compiler")
            self._warned = True
        with torch.compiler.set_stance("force_eager"):
            return self._module(*tensors)


@torch.no_grad()
def _run_once(spec: ProgramSpec, count: int) -> None:
    spec.module(*spec.examples(count))
