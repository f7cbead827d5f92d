"""Choices for live sessions where the user made none: a small decoder, and the number of denoising steps."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from typing import Any

import numpy as np
import torch

from personalive.checkpoints.decoder import WEIGHTS
from personalive.checkpoints.folder import CheckpointFolder
from personalive.config import PHOTO, TAESD, default_decoder_folder
from personalive.device import device_name
from personalive.engine.base import BaseEngine
from personalive.engine.engine import Engine
from personalive.media.reader import open_video
from personalive.runtime.autotune import AutotuneConfig
from personalive.runtime.cache import ProgramCache, program_key
from personalive.runtime.memory import engine_oom_errors
from personalive.vision.resize import resize_portrait

_LOG = logging.getLogger(__name__)
_SD_SCALE = 0.18215  # also where a config names none
_SD_LATENTS = (4, 4, _SD_SCALE)  # channels, levels of the VAE and scale of the latents that TAESD decodes (weights)


@dataclass(frozen=True, kw_only=True)
class LiveStepsConfig:
    """Choosing the number of denoising steps (ours)."""

    invisible_db: float = 0.25  # of PSNR that may be lost: nobody sees it
    windows: int = 2  # of the demo's driving clip
    every: int = 3  # so many of its frames are one step of the driver


def live_decoder(weights: str) -> str | None:
    """ "taesd" where it is at hand and made for the latents of ``weights``; else None, the model's own.

    Where it would fit and is missing, one line in the log says how to get it.

    Raises:
        CheckpointError: no model there.
    """
    if weights == PHOTO:
        return None
    vae = CheckpointFolder.open(weights).vae
    if (vae["latent_channels"], len(vae["block_out_channels"]), vae.get("scaling_factor", _SD_SCALE)) != _SD_LATENTS:
        return None
    if WEIGHTS.find(default_decoder_folder()) is not None:
        _LOG.warning("live frames are decoded by TAESD, faster and less exact: --decoder own takes the model's own")
        return TAESD
    _LOG.warning("a small decoder makes live frames faster: `personalive weights download --decoder %s`", TAESD)
    return None


def choose_live_steps(
    engine: BaseEngine, cache: ProgramCache | None = None, config: LiveStepsConfig | None = None
) -> int | None:
    """Number of denoising steps with the least delay among those that lose nothing that is seen.

    Measured once for each model and backend, on the demo's driver, who drives a portrait of their own: so the driving
    frames are the truth. Told in one line of the log.

    Returns:
        None where there is nothing to choose: on a GPU, without such steps, and where a CPU is far from real time.

    Raises:
        DeviceError: memory is not enough.
    """
    if not isinstance(engine, Engine) or engine.folder is None or engine.device.type != "cpu" or engine.max_steps < 2:
        return None
    values = sum(value.numel() for network in engine.networks.modules().values() for value in network.parameters())
    if values > AutotuneConfig.max_values:
        return None
    cache, model = cache or ProgramCache(), CheckpointFolder.open(str(engine.folder)).identity()
    key = program_key("steps", "torch", model=model, device=device_name(engine.device), **engine.facts)
    if (found := cache.get(key)) is None:
        with engine_oom_errors(engine):
            found = _measure(engine, config or LiveStepsConfig())
        cache.put(key, found)
    _LOG.warning("live: %s; --steps chooses another number", found["reason"])
    return found["steps"]


def _measure(engine: Engine, config: LiveStepsConfig) -> dict[str, Any]:
    truth = _demo(engine, config)
    all_db, all_s = _play(engine, truth, engine.max_steps)
    lost_db = 0.0
    for steps in range(1, engine.max_steps):
        psnr_db, delay_s = _play(engine, truth, steps)
        lost_db = all_db - psnr_db
        if lost_db <= config.invisible_db and delay_s < all_s:
            reason = (
                f"{steps} of {engine.max_steps} denoising steps, for {delay_s:.1f} s of delay instead of {all_s:.1f} "
                f"and {lost_db:.2f} dB"
            )
            return {"steps": steps, "reason": reason}
    return {
        "steps": engine.max_steps,
        "reason": f"all {engine.max_steps} denoising steps: fewer lose {lost_db:.1f} dB",
    }


def _play(engine: Engine, truth: np.ndarray, steps: int) -> tuple[float, float]:
    """PSNR in dB of a head that drives itself, and the delay of a whole chunk in seconds: each step is a call."""
    taken_s: list[float] = []
    chunks = engine.stream(truth[0, 0], truth, steps=steps, on_step=lambda _, seconds: taken_s.append(seconds))
    error = torch.cat(list(chunks)).float() - torch.from_numpy(truth).flatten(0, 1)
    return 10 * math.log10(255**2 / max(float(error.square().mean()), 1e-9)), steps * min(taken_s)


def _demo(engine: Engine, config: LiveStepsConfig) -> np.ndarray:
    """Windows (n, 4, S, S, 3) uint8 of the demo's driving clip at the model's size."""
    count = config.windows * engine.chunk_frames
    with (
        resources.as_file(resources.files("personalive") / "assets" / "demo" / "driving.mp4") as path,
        open_video(path) as clip,
    ):
        chosen = islice(clip, 0, count * config.every, config.every)
        frames = [resize_portrait(frame.image, engine.image_size) for frame in chosen]
    return np.stack(frames).reshape(config.windows, engine.chunk_frames, *frames[0].shape)
