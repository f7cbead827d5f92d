"""A small decoder in the place of the VAE's: diffusers' ``AutoencoderTiny`` in a folder of its own, such as TAESD."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from personalive.checkpoints.folder import CheckpointFolder, read_config
from personalive.checkpoints.layout import WeightFile
from personalive.checkpoints.networks import building
from personalive.checkpoints.strict import load_files
from personalive.config import TAESD, default_decoder_folder, expand_user
from personalive.errors import CheckpointError

CONFIG, WEIGHTS = "config.json", WeightFile("diffusion_pytorch_model")
_CLASS = "AutoencoderTiny"
_SIDE = 8  # of the latents that it is tried on


def load_decoder(
    where: str | Path,
    model: CheckpointFolder,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Load a small decoder for the latents of ``model``, as its networks are loaded: safely, strictly, for inference.

    Args:
        where: a folder with ``config.json`` and ``diffusion_pytorch_model``, or "taesd" for the one that
            ``personalive weights download`` fetches.

    Raises:
        CheckpointError: no such folder, another kind of network, unusable weights, or other latents than the model's.
    """
    root = default_decoder_folder() if str(where) == TAESD else expand_user(where)
    weights = WEIGHTS.find(root)
    if weights is None:
        raise CheckpointError(
            f"{root}: no decoder here (no {WEIGHTS.stem}.safetensors): name a folder that has one, or fetch one with "
            f"`personalive weights download --decoder {TAESD}`"
        )
    config = read_config(root / CONFIG)
    if (kind := config.get("_class_name")) != _CLASS:
        raise CheckpointError(f"{root / CONFIG}: describes {kind!r:.60} instead of an {_CLASS}: give another folder")
    with building("decoder", root / CONFIG):
        module = _build(config)
    _check_fit(module, model, root)
    load_files(module, [weights], device=device, dtype=dtype)
    return module.eval().requires_grad_(False)


def _build(config: dict[str, Any]) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny  # noqa: PLC0415 (takes seconds)

    # TAESD's own file has an entry that its class does not take: diffusers would warn every user of it
    known = {name: value for name, value in config.items() if name != "block_out_channels"}
    return AutoencoderTiny.from_config(known)  # pyright: ignore[reportReturnType]


def _check_fit(decoder: Any, model: CheckpointFolder, root: Path) -> None:
    """By shapes: an image is as many times larger than its latent, and latents have as many channels."""
    channels, stride = model.vae["latent_channels"], 2 ** (len(model.vae["block_out_channels"]) - 1)
    own = decoder.config.latent_channels
    if own != channels:
        raise CheckpointError(f"{root}: decodes latents of {own} channels, {model.name} has {channels}: leave it out")
    with building("decoder", root / CONFIG):
        made = decoder.decode(torch.empty(1, channels, _SIDE, _SIDE)).sample.shape
    if tuple(made) != (wanted := (1, 3, _SIDE * stride, _SIDE * stride)):
        raise CheckpointError(
            f"{root}: makes {tuple(made)} of a latent of {_SIDE} x {_SIDE}, {model.name} wants {wanted}: leave it out"
        )


def decoder_identity(decoder: nn.Module) -> str:
    """16 hex digits that change when its weights do."""
    digest = hashlib.sha256()
    for key, value in sorted(decoder.state_dict().items()):
        digest.update(key.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
