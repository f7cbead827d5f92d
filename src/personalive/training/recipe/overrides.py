"""From a preset, a file and ``key=value`` pairs to one checked config. Imports no torch."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from personalive.errors import InputError
from personalive.training.recipe.settings import CHANGEABLE, PRESETS, STAGE_VALUES, STAGES, Stage, TrainConfig

MAX_CONFIG_BYTES = 1 << 20
MATCHES_SHOWN = 3
_SHARES = ("drop.", "data.other_driver")
_FROM_ZERO = (
    "seed",
    "loss.",
    "augment.",
    "motion.noise_offset",
    "optimiser.weight_decay",
    "optimiser.warmup_steps",
    "discriminator.generator_from_step",
    "discriminator.train_from_step",
    "stream.keyframe_threshold",
    "journal.held_out_samples",
    "journal.sheet_rows",
)


def resolve(stage: Stage, preset: str = "full", file: Path | None = None, pairs: Iterable[str] = ()) -> TrainConfig:
    """The config of ``stage``: defaults, then the stage, the preset, the file, and ``key=value`` pairs.

    Raises:
        InputError: an unknown stage, preset or key, or a value that means nothing, in one line.
    """
    if stage not in STAGES:
        raise InputError(f"stage {stage!r} is not known: use {', '.join(STAGES)}")
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known: use {', '.join(PRESETS)}")
    config = TrainConfig(stage=stage, preset=preset)
    chosen = PRESETS[preset]
    for values in (STAGE_VALUES[stage], chosen.get("all", {}), chosen.get(stage, {})):
        config = override(config, values, where=f"preset {preset}")
    if file is not None:
        config = override(config, _read(file), where=str(file))
    config = override(config, dict(map(_pair, pairs)), where="--set")
    check(config)
    return config


def override(config: TrainConfig, values: Mapping[str, Any], where: str) -> TrainConfig:
    """``config`` with other values for dotted keys; strings are read as the kind of value that the key has.

    Raises:
        InputError: a key that is not there, naming those that are spelled alike, or a value of another kind.
    """
    known = flatten(config)
    for key, value in values.items():
        if key not in known:
            raise InputError(_unknown(where, key, known))
        if key in ("stage", "preset") and value != known[key]:
            raise InputError(f"{where}: {key} is {value!r}, but the command says {known[key]!r}: make them agree")
        config = _put(config, key.split("."), _read_value(config, key, value, where))
    return config


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values, in the order of the definition."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = f"{prefix}{field.name}"
        found |= flatten(value, f"{key}.") if dataclasses.is_dataclass(value) else {key: value}
    return found


def as_json(config: TrainConfig) -> str:
    """The whole config, for people and for ``--config``."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str, where: str) -> TrainConfig:
    """Read what ``as_json`` wrote.

    Raises:
        InputError: not such a config.
    """
    values = _decoded(text, where)
    if values.get("stage") not in STAGES:
        raise InputError(f"{where}: no training config (its stage is {values.get('stage')!r}): give another --run")
    config = TrainConfig(stage=values["stage"], preset=str(values.get("preset")))
    return override(config, values, where=where)


def check_same(begun: TrainConfig, now: TrainConfig, where: str) -> None:
    """Refuse to go on with a run under values that would make it another run.

    Raises:
        InputError: naming the first value that differs.
    """
    before, after = flatten(begun), flatten(now)
    changed = [key for key in after if before[key] != after[key] and not key.startswith(CHANGEABLE)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
        raise InputError(
            f"{where}: this run began with {key} {before[key]!r}, not {after[key]!r}{more}: "
            "repeat its own command, or give another --run"
        )


def check(config: TrainConfig) -> None:
    """Refuse values that cannot be meant.

    Raises:
        InputError: naming the key and the rule.
    """
    for key, value in flatten(config).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key.startswith(_SHARES):
            fine, rule = 0 <= value <= 1, "from 0 to 1"
        elif key.startswith(_FROM_ZERO):
            fine, rule = value >= 0, "0 or more"
        else:
            fine, rule = value > 0, "above 0"
        if not fine or math.isnan(value):
            raise InputError(f"{key} {value}: give a number {rule}")
    _check_parts(config)


def _check_parts(config: TrainConfig) -> None:
    stream, drop = config.stream, config.drop
    if drop.reference_tokens == 1:
        raise InputError("drop.reference_tokens 1.0: leaves nothing; give less, or use drop.reference")
    if config.augment.stretch < 1:
        raise InputError(f"augment.stretch {config.augment.stretch}: give 1 or more")
    if config.augment.warp_min > config.augment.warp_max:
        raise InputError("augment.warp_min is above augment.warp_max: exchange them")
    windows = stream.gradient_windows
    if not windows or list(windows) != sorted(set(windows)) or windows[0] < 0:
        raise InputError(f"stream.gradient_windows {list(windows)}: give rising numbers of windows, from 0 up")


def _unknown(where: str, key: str, known: Mapping[str, Any]) -> str:
    last = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    near = difflib.get_close_matches(key, known, MATCHES_SHOWN)
    near += [last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], last, MATCHES_SHOWN)]
    shown = ", ".join(list(dict.fromkeys(near))[:MATCHES_SHOWN])
    return f"{where}: unknown key {key!r}: " + (f"did you mean {shown}?" if shown else "--dry-run prints all keys")


def _put(config: Any, path: list[str], value: Any) -> Any:
    first, *rest = path
    return dataclasses.replace(config, **{first: _put(getattr(config, first), rest, value) if rest else value})


def _read_value(config: TrainConfig, key: str, value: Any, where: str) -> Any:
    *path, name = key.split(".")
    owner: Any = config
    for part in path:
        owner = getattr(owner, part)
    present = getattr(owner, name)
    read: Any = _parsed(value, present) if isinstance(value, str) else value
    read = tuple(read) if isinstance(read, list) else read
    choices = get_args(get_type_hints(type(owner))[name]) if isinstance(present, str) else ()
    if choices and read not in choices:
        raise InputError(f"{where}: {key} {value!r}: use {', '.join(choices)}")
    wanted = (int, float) if isinstance(present, float) else type(present)
    if not isinstance(read, wanted) or isinstance(read, bool) != isinstance(present, bool):
        raise InputError(f"{where}: {key} should be like {_example(present)}, not {value!r}")
    if isinstance(present, tuple) and not all(isinstance(item, int) for item in read):
        raise InputError(f"{where}: {key} should be like {_example(present)}, not {value!r}")
    return float(read) if isinstance(present, float) else read


def _parsed(text: str, present: Any) -> Any:
    """``text`` as the kind of ``present``; the text itself where it is no such thing."""
    try:
        if isinstance(present, bool):
            return {"true": True, "false": False}.get(text.lower(), text)
        if isinstance(present, tuple):
            return tuple(int(part) for part in text.split(","))
        return type(present)(text)
    except ValueError:
        return text


def _example(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: give it as key=value")
    return key.strip(), value.strip()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a config file: check the name") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise InputError(f"{path}: too large for a config: check the name")
    return _decoded(text, str(path))


def _decoded(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: --dry-run prints what it should look like") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: not a JSON object: --dry-run prints what it should look like")
    return _dotted(values)


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
