"""The names that users may rely on, and how they come."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import personalive
from personalive import errors

PUBLIC = {
    "AnimateOptions",
    "AnimateReport",
    "CheckpointError",
    "DeviceError",
    "DownloadError",
    "Engine",
    "FaceNotFoundError",
    "InputError",
    "OutputError",
    "PersonaLiveError",
    "Progress",
    "StreamState",
    "TrainingError",
    "__version__",
    "animate",
    "load_engine",
}


def parameters(function) -> dict[str, inspect._ParameterKind]:
    return {name: p.kind for name, p in inspect.signature(function).parameters.items()}


def test_public_names_are_these():
    assert set(personalive.__all__) == PUBLIC
    assert set(dir(personalive)) == PUBLIC
    assert personalive.__all__ == sorted(personalive.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_can_be_had_and_is_documented(name: str):
    value = getattr(personalive, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'personalive' has no attribute 'animat'"):
        _ = personalive.animat  # pyright: ignore[reportAttributeAccessIssue]
    assert not hasattr(personalive, "torch")


def test_every_error_can_be_imported_and_is_of_one_family():
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds == {name for name in PUBLIC if name.endswith("Error")}
    assert all(issubclass(getattr(errors, name), errors.PersonaLiveError) for name in kinds)


def test_animate_takes_files_by_position_and_all_else_by_name():
    kinds = parameters(personalive.animate)
    assert list(kinds)[:3] == ["portrait", "driving", "output"]
    later = {name: kind for name, kind in kinds.items() if name not in ("portrait", "driving", "output")}
    assert set(later) == {
        "weights",
        "engine",
        "device",
        "dtype",
        "vram",
        "backend",
        "decoder",
        "progress",
        "loading",
        "preparing",
        "parts",
        "options",
    }
    assert set(later.values()) == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


def test_options_of_animate_are_these():
    assert {field.name for field in dataclasses.fields(personalive.AnimateOptions)} == {
        "seed",
        "keyframe_threshold",
        "steps",
        "framing",
        "no_face",
        "center_fallback",
        "credentials",
        "visible_mark",
        "start_s",
        "end_s",
        "size_px",
        "output_frame",
        "audio",
        "side_by_side",
        "contact_sheet",
        "mirror",
        "expression",
        "mouth",
        "eyes",
        "head_motion",
        "pose",
        "smoothing",
    }


def test_load_engine_takes_the_weights_by_position():
    kinds = parameters(personalive.load_engine)
    named = ["device", "dtype", "vram", "backend", "decoder", "frames", "progress", "preparing"]
    assert list(kinds) == ["weights", *named]
    assert {kinds[name] for name in named} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_stream_is_driven_by_these_methods():
    methods = {name for name in dir(personalive.Engine) if callable(getattr(personalive.Engine, name))}
    of_any = {
        "start",
        "encode_motion",
        "prepared",
        "step",
        "flush",
        "stream",
        "stream_from",
        "check",
        "notes",
        "check_steps",
        "warm_up",
    }
    assert {name for name in methods if not name.startswith("_")} == of_any | {"advance", "decode", "decode_images"}
    of_start = ["seed", "noise", "keyframe_threshold", "steps"]
    assert list(parameters(personalive.Engine.start)) == ["self", "portrait", *of_start]
    assert list(parameters(personalive.Engine.step)) == ["self", "state", "window", "noise", "cut", "controls"]
    named = ["seed", "keyframe_threshold", "steps", "controls", "on_step"]
    assert list(parameters(personalive.Engine.stream)) == ["self", "portrait", "windows", *named]
    assert list(parameters(personalive.Engine.advance)) == ["self", "state", "conditioning", "noise"]


def test_the_state_holds_these_values():
    assert [field.name for field in dataclasses.fields(personalive.StreamState)] == [
        "reference",
        "latents",
        "motion",
        "pose",
        "poses",
        "newest",
        "driver",
        "bank",
        "keyframe_candidates",
        "keyframe_threshold",
        "seed",
        "call",
    ]
