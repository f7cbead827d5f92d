"""Strict loading: every key of the module is in a file, and every key of a file belongs to the module.

Of the files that the original loads loosely (``KeyRules.extra_allowed``), keys that the module lacks are a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from personalive.checkpoints.config import WeightFilesConfig
from personalive.checkpoints.files import TensorInfo, portions, read_infos, read_tensors
from personalive.checkpoints.key_map import NO_RULES, KeyRules
from personalive.errors import CheckpointError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """Differences between files and a module. ``misshapen`` entries give both shapes.

    All but ``extra``, keys that are left out with a warning, keep the files from being the module's weights.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """Words for the keys that are left out, or None where there are none."""
        if not self.extra:
            return None
        return f"left out what this model has no place for: {len(self.extra)} unexpected ({_first(self.extra)})"

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", self.misshapen))
        return ", ".join(f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys)


def _first(keys: Sequence[str]) -> str:
    shown = WeightFilesConfig().keys_shown
    return ", ".join(keys[:shown]) + (", ..." if len(keys) > shown else "")


def module_infos(module: nn.Module) -> dict[str, TensorInfo]:
    """Shapes and dtypes of a module's state dict; the module may be on the meta device."""
    return {key: TensorInfo(tuple(t.shape), t.dtype) for key, t in module.state_dict().items()}


def canonical_infos(found: Mapping[str, TensorInfo], rules: KeyRules) -> dict[str, TensorInfo]:
    """A file's infos under the module's names and shapes."""
    renamed = {rules.canonical(key): info for key, info in found.items()}
    return {key: TensorInfo(rules.canonical_shape(key, i.shape), i.dtype) for key, i in renamed.items()}


def compare(wanted: Mapping[str, TensorInfo], found: Mapping[str, TensorInfo], rules: KeyRules) -> KeyDifference:
    """Compare a module's infos with canonical infos of its files."""
    both = [key for key in wanted if key in found]
    others = tuple(key for key in found if key not in wanted and not rules.ignores(key))
    return KeyDifference(
        missing=tuple(k for k in wanted if k not in found and not rules.allows_missing(k)),
        unexpected=() if rules.extra_allowed else others,
        misshapen=tuple(
            f"{k}: file {_describe(found[k])}, model {_describe(wanted[k])}"
            for k in both
            if found[k].shape != wanted[k].shape or _kind(found[k].dtype) != _kind(wanted[k].dtype)
        ),
        extra=others if rules.extra_allowed else (),
    )


def merge_infos(
    files: Iterable[tuple[Path, Mapping[str, TensorInfo]]], wanted: Container[str]
) -> dict[str, TensorInfo]:
    """The union of the files of one part; a wanted key in two files must have one shape.

    Raises:
        CheckpointError: a key has different shapes in two files.
    """
    union: dict[str, TensorInfo] = {}
    for path, infos in files:
        for key, info in infos.items():
            if key in wanted and key in union and union[key].shape != info.shape:
                raise CheckpointError(
                    f"{path}: {key} is {_describe(info)} here but {_describe(union[key])} in the file beside "
                    "it: the two come from different models, download both again"
                )
            union[key] = info
    return union


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    file_label: str,
    *,
    rules: KeyRules = NO_RULES,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> None:
    """Put ``tensors`` into ``module``, in place of the parameters and buffers it has.

    The module may be on the meta device, except for buffers that are not in its state dict. Tensors are
    copied one by one straight to ``device`` and ``dtype`` (floating ones; None keeps the module's formats):
    no second copy in another format exists. At the end the whole module is on ``device`` in ``dtype``.

    Raises:
        CheckpointError: any missing, unexpected or misshapen key that ``rules`` does not exempt.
    """
    found = {key: TensorInfo(tuple(t.shape), t.dtype) for key, t in tensors.items()}
    _accept(file_label, compare(module_infos(module), canonical_infos(found, rules), rules))
    module.load_state_dict(_ready(module_infos(module), tensors, rules, device, dtype), strict=False, assign=True)
    _finish(module, file_label, device, dtype)


def load_files(
    module: nn.Module,
    paths: Sequence[Path],
    *,
    rules: KeyRules = NO_RULES,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    loaded: Callable[[int], None] | None = None,
) -> None:
    """``load_strict`` from the union of ``paths``, one open at a time; of equal keys the later file's wins.

    All shapes are checked before the first value is read. Files are read in portions, each closed before the next:
    main memory holds what is loaded to the CPU, and one portion. ``loaded`` is called with the
    bytes of each tensor as it arrives.

    Raises:
        CheckpointError: as ``load_strict`` and ``read_tensors``.
    """
    label = " + ".join(str(path) for path in paths)
    found = {path: read_infos(path) for path in paths}
    own = module_infos(module)
    infos = merge_infos(((path, canonical_infos(raw, rules)) for path, raw in found.items()), own)
    _accept(label, compare(own, infos, rules))
    ready: dict[str, Tensor] = {}
    for path, raw in found.items():
        for keys in portions(path, raw, WeightFilesConfig().read_at_once_bytes):
            # unnamed, so that a portion and the file's pages behind it are gone before the next is read
            ready |= _ready(own, read_tensors(path, keys), rules, device, dtype, loaded)
    module.load_state_dict(ready, strict=False, assign=True)
    _finish(module, label, device, dtype)


def _accept(label: str, difference: KeyDifference) -> None:
    """Refuse weights that are not this module's, and warn of what is left out of those that are."""
    if difference:
        raise CheckpointError(
            f"{label}: not the weights of this model: {difference}: "
            "check that the file and the config beside it belong together, or download them again"
        )
    if (warning := difference.warning) is not None:
        _LOG.warning("%s: %s", label, warning)


def _ready(
    own: Mapping[str, TensorInfo],
    tensors: Mapping[str, Tensor],
    rules: KeyRules,
    device: torch.device | str,
    dtype: torch.dtype | None,
    loaded: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Copies of ``tensors`` as the module wants them, by its own keys; what it has no place for is left out."""
    ready = {}
    for key, tensor in tensors.items():
        name = rules.canonical(key)
        if name in own:
            kept = dtype if dtype is not None and own[name].dtype.is_floating_point else own[name].dtype
            # always a copy: a mapped file that is later replaced must not reach into a running model
            copy = tensor.to(device=device, dtype=kept, copy=True).reshape(own[name].shape)
            ready[name] = copy.contiguous()
        if loaded is not None:
            loaded(tensor.nbytes)
    return ready


def _finish(module: nn.Module, label: str, device: torch.device | str, dtype: torch.dtype | None) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise CheckpointError(f"{label}: {name} has no value in the file nor of its own: download it again")
    # for what the file does not hold: tables, counters; a library's own .to() may warn of half precision
    nn.Module.to(module, device=device, dtype=dtype)


def _kind(dtype: torch.dtype) -> str:
    return "float" if dtype.is_floating_point else "complex" if dtype.is_complex else "integer"


def _describe(info: TensorInfo) -> str:
    return f"{'x'.join(map(str, info.shape)) or 'scalar'} {_kind(info.dtype)}"
