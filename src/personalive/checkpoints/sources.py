"""Sources of the released weights: every file that is fetched; no path is taken from a server."""

from __future__ import annotations

from dataclasses import dataclass

from personalive.checkpoints.layout import CLIP_CONFIG, UNET_CONFIG, VAE_CONFIG
from personalive.config import FACE_DETECTOR

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file: its repository, its possible paths there (the first one present is taken), its destination.

    ``destinations`` pairs with ``paths``: relative to the weights folder. ``max_bytes`` bounds the download.
    ``sha256`` is given where the file is pinned; the others are checked against the hash that the hub publishes.
    """

    repo: str
    paths: tuple[str, ...]
    destinations: tuple[str, ...]
    max_bytes: int
    sha256: str | None = None
    revision: str = "main"


def _personalive(name: str, max_bytes: int) -> Source:
    return Source(
        repo="huaichang/PersonaLive",
        paths=(f"pretrained_weights/personalive/{name}.pth",),
        destinations=(f"personalive/{name}.pth",),
        max_bytes=max_bytes,
    )


def _config(repo: str, path: str, destination: str) -> Source:
    return Source(repo=repo, paths=(path,), destinations=(destination,), max_bytes=_MIB)


_VAE = "stabilityai/sd-vae-ft-mse"
_VARIATIONS = "lambdalabs/sd-image-variations-diffusers"

RELEASED: tuple[Source, ...] = (
    # small ones first, so that a wrong token or mirror shows within seconds
    _config(_VAE, "config.json", VAE_CONFIG),
    _config(_VARIATIONS, "unet/config.json", UNET_CONFIG),
    _config(_VARIATIONS, "image_encoder/config.json", CLIP_CONFIG),
    Source(
        repo="opencv/face_detection_yunet",  # MIT
        paths=("face_detection_yunet_2023mar.onnx",),
        destinations=(FACE_DETECTOR,),
        max_bytes=_MIB,
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    # bounds: the float32 sizes of the released networks, with room for a head or a second copy of a module
    _personalive("pose_guider", 64 * _MIB),
    _personalive("motion_extractor", 512 * _MIB),
    _personalive("motion_encoder", _GIB),
    Source(
        repo=_VAE,
        paths=("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        destinations=(
            "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
            "sd-vae-ft-mse/diffusion_pytorch_model.bin",
        ),
        max_bytes=_GIB,
    ),
    Source(
        repo=_VARIATIONS,
        paths=("image_encoder/model.safetensors", "image_encoder/pytorch_model.bin"),
        destinations=(
            "sd-image-variations-diffusers/image_encoder/model.safetensors",
            "sd-image-variations-diffusers/image_encoder/pytorch_model.bin",
        ),
        max_bytes=2 * _GIB,
    ),
    _personalive("temporal_module", 8 * _GIB),
    _personalive("reference_unet", 8 * _GIB),
    _personalive("denoising_unet", 8 * _GIB),
)

SMALL_DECODER: tuple[Source, ...] = (  # TAESD, MIT
    _config("madebyollin/taesd", "config.json", "config.json"),
    Source(
        repo="madebyollin/taesd",
        paths=("diffusion_pytorch_model.safetensors",),
        destinations=("diffusion_pytorch_model.safetensors",),
        max_bytes=64 * _MIB,  # 2.4 million values
    ),
)
