"""Controls of a running session: their ranges, and no other names."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from personalive.engine.controls import Controls
from personalive.errors import InputError
from personalive.live.controls import LiveControls, control_ranges


def test_the_defaults_are_those_of_the_protocol():
    assert asdict(LiveControls()) == {
        "expression": 1.0,
        "mouth": 1.0,
        "eyes": 1.0,
        "head_motion": 1.0,
        "pose": "absolute",
        "smoothing": 0.0,
        "seed": 0,
        "mirror": False,
        "driving_fps": None,
        "keyframes": True,
        "keyframe_threshold": 17.0,
        "steps": None,
        "delay_ms": 0.0,
        "visible_mark": False,
        "output_frame": "square",
    }
    assert isinstance(LiveControls(), Controls)
    assert {name: control["default"] for name, control in control_ranges().items()} == asdict(LiveControls())


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("expression", (0, 2)),
        ("mouth", (0, 2)),
        ("eyes", (0, 2)),
        ("head_motion", (0, 2)),
        ("smoothing", (0, 0.95)),
        ("driving_fps", (1, 60)),
        ("keyframe_threshold", (0, 1e6)),
        ("delay_ms", (0, 3000)),
    ],
)
def test_numbers_are_taken_up_to_their_edges_and_no_further(name, edges):
    for edge in edges:
        assert getattr(LiveControls().changed({name: edge}), name) == edge
    low, high = edges
    assert control_ranges()[name] == {"default": getattr(LiveControls(), name), "min": low, "max": high}
    for wrong in (low - 0.01, high + 0.01, math.nan, math.inf, -math.inf, 10**400, "1", True, [1], {}):
        with pytest.raises(InputError, match=name):
            LiveControls().changed({name: wrong})


@pytest.mark.parametrize("name", ["expression", "head_motion", "smoothing", "keyframe_threshold", "delay_ms"])
def test_only_the_rate_may_be_left_to_the_server(name):
    with pytest.raises(InputError, match=name):
        LiveControls().changed({name: None})
    assert LiveControls(driving_fps=5.0).changed({"driving_fps": None}).driving_fps is None


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.0),
        ("seed", True),
        ("seed", None),
        ("mirror", 1),
        ("mirror", "true"),
        ("keyframes", None),
        ("pose", "upside down"),
        ("pose", []),
        ("output_frame", "whole"),
        ("output_frame", None),
    ],
)
def test_choices_take_their_own_values_alone(name, wrong):
    with pytest.raises(InputError, match=name):
        LiveControls().changed({name: wrong})


def test_an_unknown_name_is_refused_with_all_known_ones():
    with pytest.raises(InputError) as refusal:
        LiveControls().changed({"expression": 0.5, "expresion": 1})
    assert "'expresion'" in str(refusal.value)
    assert all(name in str(refusal.value) for name in asdict(LiveControls()))


def test_controls_that_are_not_named_stay_and_the_old_value_is_untouched():
    before = LiveControls(mirror=True, delay_ms=40.0)
    after = before.changed({"expression": 0.5})
    assert asdict(after) == asdict(before) | {"expression": 0.5}
    assert before.expression == 1.0


def test_keyframes_that_are_off_are_infinitely_far():
    assert LiveControls(keyframe_threshold=3.0).threshold == 3.0
    assert LiveControls(keyframe_threshold=3.0, keyframes=False).threshold == math.inf
