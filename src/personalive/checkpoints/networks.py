"""The networks of a folder: built without values, loaded, saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from personalive.checkpoints.files import TensorInfo, read_infos, whole_folder, write_config, write_safetensors
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.key_map import KEY_RULES
from personalive.checkpoints.layout import CLIP_CONFIG, MODEL_CONFIG, PARTS, UNET_CONFIG, VAE_CONFIG, parts_of
from personalive.checkpoints.strict import load_files, module_infos
from personalive.errors import CheckpointError
from personalive.models.detail import DetailHead
from personalive.models.motion_encoder import MotionEncoder
from personalive.models.networks import Networks
from personalive.models.pose import MotionExtractor, PoseGuider
from personalive.models.unet import DenoisingUNet, ReferenceUNet, UNetConfig


class _EmptyIsMeta(TorchFunctionMode):
    """Uninitialised storage (``torch.empty``, which every layer's weights start as) goes to the meta device.

    Initialisers (``torch.nn.init``) do nothing. Computed tensors stay real: position tables and indices that are in
    no weight file keep their values, which ``torch.device("meta")`` would lose.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        elif getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
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
    with building(part, folder.path(config_file)):
        return build(folder)


@contextmanager
def building(part: str, config_file: Path) -> Iterator[None]:
    """Context in which a network is built ``without_values``, from what ``config_file`` describes.

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
            f"{folder.path(UNET_CONFIG)}: not a U-Net config ({type(error).__name__}: {error}): download it again"
        ) from error


def _vae(folder: CheckpointFolder) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: PLC0415 (takes seconds)

    return AutoencoderKL.from_config(dict(folder.vae))  # pyright: ignore[reportReturnType]


def _clip(folder: CheckpointFolder) -> nn.Module:
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers.models.clip.configuration_clip import CLIPVisionConfig  # noqa: PLC0415 (takes seconds)
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection  # noqa: PLC0415

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


# --- loading and saving ---------------------------------------------------------------------------------------------


LoadProgress = Callable[[int, int], None]  # (bytes read, bytes in all)
_TEMPORAL = ".temporal_modules."  # keys that the released layout keeps in temporal_module


def load_networks(
    folder: CheckpointFolder,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: LoadProgress | None = None,
    settle: Callable[[str, nn.Module], None] = lambda part, module: None,
) -> Networks:
    """Load every network of ``folder`` for inference: on ``device``, in ``dtype``, no gradients, eval mode.

    Each is built without values and filled straight in the wanted format, one file open at a time. ``progress`` is
    called after every tensor. ``settle`` is given each network as it is ready, by its name, before the next is read:
    what it moves elsewhere makes room.

    Raises:
        CheckpointError: files that are damaged, unsafe, or not the weights of this model.
    """
    names = parts_of(folder.config)
    loaded = None if progress is None else _counted(progress, folder, names)
    parts = {}
    for part in names:
        parts[part] = load_part(folder, part, device=device, dtype=dtype, loaded=loaded)
        settle(part, parts[part])
    return Networks(config=folder.config, unet_config=unet_config(folder), **cast(dict[str, Any], parts))


def load_part(
    folder: CheckpointFolder,
    part: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    loaded: Callable[[int], None] | None = None,
) -> nn.Module:
    """Load one network ("vae", "clip", "reference_unet", ...) as ``load_networks`` does.

    ``loaded`` is called with the bytes of each tensor as it arrives.

    Raises:
        CheckpointError: as ``load_networks``.
    """
    module = build_part(folder, part)
    load_files(module, folder.files(part), rules=KEY_RULES[part], device=device, dtype=dtype, loaded=loaded)
    return module.eval().requires_grad_(False)


def count_values(folder: CheckpointFolder) -> int:
    """Numbers in all weight files of ``folder``, by their headers.

    Raises:
        CheckpointError: files that are damaged or unsafe.
    """
    files = [path for part in parts_of(folder.config) for path in folder.files(part)]
    return sum(math.prod(info.shape) for path in files for info in read_infos(path).values())


def _counted(progress: LoadProgress, folder: CheckpointFolder, parts: Iterable[str]) -> Callable[[int], None]:
    """Adds up what arrives; tensors count as they lie in the files, so the files' own sizes are all."""
    total = sum(path.stat().st_size for part in parts for path in folder.files(part))
    done = 0

    def loaded(count: int) -> None:
        nonlocal done
        done = min(done + count, total)
        progress(done, total)

    return loaded


def save_networks(networks: Networks, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write ``networks`` as a folder in the released layout: configs, and safetensors in ``dtype``.

    The folder appears when it is whole.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    with whole_folder(folder) as temporary:
        write_config(temporary / MODEL_CONFIG, networks.config.to_json())
        write_config(temporary / UNET_CONFIG, unet_to_diffusers(networks.unet_config))
        write_config(temporary / VAE_CONFIG, _public(networks.vae.config) | {"_class_name": "AutoencoderKL"})
        write_config(temporary / CLIP_CONFIG, _public(networks.clip.config.to_diff_dict()))
        for part, module in networks.modules().items():
            _save_part(module, part, temporary, dtype)


def unet_to_diffusers(config: UNetConfig) -> dict[str, Any]:
    """Config that ``UNetConfig.from_diffusers`` reads; the motion width is in ``personalive/config.json``."""
    down = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}
    up = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}
    ours: dict[str, Any] = {} if config.frame_levels is None else {"frame_levels": list(config.frame_levels)}
    if config.temporal_attention != UNetConfig.temporal_attention:
        ours["temporal_attention"] = config.temporal_attention
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": list(config.channels),
        "down_block_types": [down[attends] for attends in config.down_attends],
        "up_block_types": [up[attends] for attends in config.up_attends],
        "layers_per_block": config.layers,
        "attention_head_dim": config.heads,
        "norm_num_groups": config.groups,
        "cross_attention_dim": config.context_width,
        **ours,
    }


def _save_part(module: nn.Module, part: str, root: Path, dtype: torch.dtype) -> None:
    state = module.state_dict()
    infos = {
        key: TensorInfo(info.shape, dtype if info.dtype.is_floating_point else info.dtype)
        for key, info in module_infos(module).items()
    }
    for file, keys in split_keys(part, infos).items():
        path = root / f"{file}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        chosen = {key: infos[key] for key in keys}
        write_safetensors(path, chosen, lambda key: state[key].to(infos[key].dtype))


def split_keys(part: str, keys: Mapping[str, Any]) -> dict[str, list[str]]:
    """Keys of a part by the file that they go to (a path without suffix)."""
    first, *rest = (file.stem for file in PARTS[part])
    if not rest:
        return {first: list(keys)}
    return {
        first: [key for key in keys if _TEMPORAL not in key],
        rest[0]: [key for key in keys if _TEMPORAL in key],
    }


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A library's config without its private entries: paths and versions of the writing machine."""
    return {key: value for key, value in config.items() if not key.startswith("_") and key != "transformers_version"}
