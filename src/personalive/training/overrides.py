"""From a preset, a file and ``key=value`` pairs to one checked config. Imports no torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personalive.errors import InputError
from personalive.training.config import TrainConfig
from personalive.training.presets import CHANGEABLE, PRESETS, STAGE_VALUES, STAGES, Overrides, Preset, Stage

MAX_CONFIG_BYTES = 1 << 20
MATCHES_SHOWN = 3


def resolve(stage: Stage, preset: str = "full", file: Path | None = None, pairs: Iterable[str] = ()) -> TrainConfig:
    """The config of ``stage``: defaults, then the stage, the preset, the file, and ``key=value`` pairs.

    Raises:
        InputError: an unknown stage, preset or key, or a value out of bounds, in one line.
    """
    if stage not in STAGES:
        raise InputError(f"stage {stage!r} is not known: use {', '.join(STAGES)}")
    chosen = preset_named(preset)
    layers = [
        (f"preset {preset}", {**STAGE_VALUES.get(stage, {}), **chosen.values, **chosen.stage_values.get(stage, {})}),
        *([(str(file), _read(file))] if file is not None else []),
        ("--set", dict(map(_pair, pairs))),
    ]
    return _validated(stage, preset, layers)


def preset_named(name: str) -> Preset:
    """One of ``PRESETS``.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is not known: use {', '.join(PRESETS)}")
    return PRESETS[name]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries, such as ``config.model_dump()``, to dotted keys and values in the same order."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def as_json(config: TrainConfig) -> str:
    """The whole config, for people and for ``--config``."""
    return json.dumps(config.model_dump(), indent=2)


def from_json(text: str, where: str) -> TrainConfig:
    """Read what ``as_json`` wrote.

    Raises:
        InputError: not such a config.
    """
    values = _decoded(text, where)
    if values.get("stage") not in STAGES:
        raise InputError(f"{where}: no training config (its stage is {values.get('stage')!r}): give another --run")
    return _validated(values["stage"], str(values.get("preset")), [(where, values)])


def check_same(begun: TrainConfig, now: TrainConfig, where: str) -> None:
    """Refuse to go on with a run under values that would make it another run.

    Raises:
        InputError: naming the first value that differs.
    """
    before, after = flatten(begun.model_dump()), flatten(now.model_dump())
    changed = [key for key in after if before[key] != after[key] and not key.startswith(CHANGEABLE)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
        raise InputError(
            f"{where}: this run began with {key} {before[key]!r}, not {after[key]!r}{more}: "
            "repeat its own command, or give another --run"
        )


def _validated(stage: Stage, preset: str, layers: Sequence[tuple[str, Overrides]]) -> TrainConfig:
    """Defaults under layers of dotted keys, the last one on top; each has the name that its errors begin with."""
    known = flatten(TrainConfig(stage=stage, preset=preset).model_dump())
    nested: dict[str, Any] = {"stage": stage, "preset": preset}
    for where, values in layers:
        for key, value in values.items():
            if key not in known:
                raise InputError(_unknown(where, key, known))
            if key in ("stage", "preset") and value != known[key]:
                raise InputError(f"{where}: {key} is {value!r}, but the command says {known[key]!r}: make them agree")
            part, _, name = key.rpartition(".")
            (nested.setdefault(part, {}) if part else nested)[name] = value
    try:
        return TrainConfig.model_validate(nested)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        where = next((where for where, values in reversed(layers) if key in values), layers[-1][0])
        rule = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise InputError(f"{where}: {key} {first['input']!r} {rule}") from error


def _unknown(where: str, key: str, known: Mapping[str, Any]) -> str:
    last = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    near = difflib.get_close_matches(key, known, MATCHES_SHOWN)
    near += [last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], last, MATCHES_SHOWN)]
    shown = ", ".join(list(dict.fromkeys(near))[:MATCHES_SHOWN])
    return f"{where}: unknown key {key!r}: " + (f"did you mean {shown}?" if shown else "--dry-run prints all keys")


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
    return flatten(values)
