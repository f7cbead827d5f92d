"""The networks of a folder, built without values: shapes from the configs, no memory for the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.layout import CLIP_CONFIG, UNET_CONFIG, VAE_CONFIG
from personalive.errors import CheckpointError
from personalive.models.detail import DetailHead
from personalive.models.motion_encoder import MotionEncoder
from personalive.models.motion_extractor import MotionExtractor
from personalive.models.pose_guider import PoseGuider
from personalive.models.unet import DenoisingUNet, ReferenceUNet, UNetConfig


class _EmptyIsMeta(TorchFunctionMode):
    """Uninitialised storage (``torch.empty``, which every layer's weights start as) goes to the meta device.

    Computed tensors stay real: position tables and indices that are in no weight file keep their values,
    which ``torch.device("meta")`` would lose.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Modules built inside take no memory for weights and leave torch's random state as it was."""
    with torch.random.fork_rng(devices=[]), _EmptyIsMeta():
        yield


def build_part(folder: CheckpointFolder, part: str) -> nn.Module:
    """One network of ``folder`` ("vae", "clip", ...) without values, in float32.

    Raises:
        CheckpointError: a config lacks an entry or has one that no network can be built from.
    """
    config_file, build = _BUILDERS[part]
    with building(part, folder.root / config_file):
        return build(folder)


@contextmanager
def building(part: str, config_file: Path) -> Iterator[None]:
    """Inside, a network is built ``without_values`` from what ``config_file`` says.

    Raises:
        CheckpointError: none can be.
    """
    try:
        with without_values():
            yield
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        ZeroDivisionError,
        RuntimeError,
    ) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{config_file}: no {part} can be built from it "
            f"({type(error).__name__}: {first_line:.100}): download it again"
        ) from error


def unet_config(folder: CheckpointFolder) -> UNetConfig:
    """Shape of both U-Nets.

    Raises:
        CheckpointError: the config lacks an entry, or entries do not fit together.
    """
    try:
        return UNetConfig.from_diffusers(folder.unet, motion_width=folder.config.motion_encoder.token_width)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder.root / UNET_CONFIG}: not a U-Net config ({type(error).__name__}: {error}): download it again"
        ) from error


def _vae(folder: CheckpointFolder) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: PLC0415 (takes seconds)

    return AutoencoderKL.from_config(dict(folder.vae))  # pyright: ignore[reportReturnType]


def _clip(folder: CheckpointFolder) -> nn.Module:
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: PLC0415 (takes seconds)

    try:
        config = CLIPVisionConfig.from_dict(dict(folder.clip))
    except StrictDataclassError as error:  # no kin of ValueError
        raise ValueError(str(error)) from error
    return CLIPVisionModelWithProjection(config)


def _pose_guider(folder: CheckpointFolder) -> nn.Module:
    return PoseGuider(folder.config.pose_guider, out_channels=unet_config(folder).channels[0])


_PERSONALIVE = "personalive"
_BUILDERS: Mapping[str, tuple[str, Callable[[CheckpointFolder], nn.Module]]] = MappingProxyType(
    {
        "vae": (VAE_CONFIG, _vae),
        "clip": (CLIP_CONFIG, _clip),
        "reference_unet": (UNET_CONFIG, lambda folder: ReferenceUNet(unet_config(folder))),
        "denoising_unet": (UNET_CONFIG, lambda folder: DenoisingUNet(unet_config(folder))),
        "motion_encoder": (_PERSONALIVE, lambda folder: MotionEncoder(folder.config.motion_encoder)),
        "motion_extractor": (_PERSONALIVE, lambda folder: MotionExtractor(folder.config.motion_extractor)),
        "pose_guider": (UNET_CONFIG, _pose_guider),
        "detail": (_PERSONALIVE, lambda folder: DetailHead(folder.config.detail, unet_config(folder).channels[0])),
    }
)
