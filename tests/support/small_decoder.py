"""A small decoder in a folder of its own, with weights that depend on a seed alone, as TAESD is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SCALE = 0.5  # TAESD's is 1, which would show nothing
CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderTiny",
    "_diffusers_version": "0.20.0",
    "encoder_block_out_channels": [4, 4, 4, 4],
    "decoder_block_out_channels": [8, 8, 8, 8],
    "block_out_channels": [8, 8, 8, 8],  # diffusers writes it and does not read it
    "num_encoder_blocks": [1, 1, 1, 1],
    "num_decoder_blocks": [1, 1, 1, 1],
    "latent_channels": 4,
    "scaling_factor": SCALE,
}


def write_small_decoder(folder: Path, seed: int = 0, **changed: Any) -> Path:
    """``changed`` are entries of the config."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    config = {**CONFIG, **changed}
    known = {key: value for key, value in config.items() if key[0] != "_" and key != "block_out_channels"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder: Any = AutoencoderTiny(**known)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(decoder.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    return folder
