"""The networks of one model, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from personalive.config import ModelConfig
from personalive.models.detail import DetailHead
from personalive.models.motion_encoder import MotionEncoder
from personalive.models.pose import MotionExtractor, PoseGuider
from personalive.models.unet import DenoisingUNet, ReferenceUNet, UNetConfig

NETWORK_NAMES = (
    "vae",
    "clip",
    "reference_unet",
    "denoising_unet",
    "motion_encoder",
    "motion_extractor",
    "pose_guider",
    "detail",
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Networks:
    """All networks, on one device in one dtype. A plain container: it moves and changes nothing."""

    config: ModelConfig
    unet_config: UNetConfig
    vae: Any  # diffusers AutoencoderKL; the libraries' own types are too loose to help
    clip: Any  # transformers CLIPVisionModelWithProjection
    reference_unet: ReferenceUNet
    denoising_unet: DenoisingUNet
    motion_encoder: MotionEncoder
    motion_extractor: MotionExtractor
    pose_guider: PoseGuider
    detail: DetailHead | None = None  # ours; absent from the released model
    small_decoder: Any | None = None  # diffusers AutoencoderTiny; not of the model, so not among its modules

    @property
    def decoder(self) -> Any:
        """Decoder of latents: ``decode(latents / config.scaling_factor).sample``."""
        return self.vae if self.small_decoder is None else self.small_decoder

    def modules(self) -> dict[str, nn.Module]:
        """Every network that this model has, by name."""
        found = {name: getattr(self, name) for name in NETWORK_NAMES}
        return {name: module for name, module in found.items() if module is not None}
