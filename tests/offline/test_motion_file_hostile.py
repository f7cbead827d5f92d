"""Files that are no motion files, however they came about: each is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from personalive.errors import InputError
from personalive.offline import motion_file as format_module
from personalive.offline.config import MotionFileConfig
from personalive.offline.motion_file import (
    load_motion_file,
    motion_clip_from_bytes,
    motion_file_bytes,
    save_motion_file,
)
from support.templates import made_template


def packed(change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> bytes:
    """A good file's tensors and metadata, changed."""
    raw = motion_file_bytes(made_template(6))
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    tensors = load(raw)
    change(tensors, metadata)
    return save(tensors, metadata)


def with_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    return packed(lambda tensors, _: tensors.update({name: change(tensors[name].clone()).contiguous()}))


def with_metadata(**values: str) -> bytes:
    return packed(lambda _, metadata: metadata.update(values))


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def fill(tensor: torch.Tensor) -> torch.Tensor:
        tensor.flatten()[-1] = value
        return tensor

    return fill


def drop(entries: dict[str, Any], name: str) -> None:
    del entries[name]


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


GOOD = motion_file_bytes(made_template(6))
HOSTILE = {
    "empty": (b"", "is not a motion file"),
    "weights": (save({"x": torch.zeros(3)}), "is not a motion file"),
    "half": (GOOD[: len(GOOD) // 2], "damaged or cut off"),
    "header cut": (GOOD[:100], "is not a motion file"),
    "more behind": (GOOD + b"0" * 9, "damaged or cut off"),
    "endless header": ((1 << 62).to_bytes(8, "little") + GOOD[8:], "is not a motion file"),
    "deep header": (with_header(b'{"a":' + b"[" * 9000), "is not a motion file"),
    "long number": (with_header(b'{"a":' + b"9" * 9000 + b"}"), "is not a motion file"),
    "list": (with_header(b"[1, 2]"), "is not a motion file"),
    "newer": (with_metadata(version="2"), "another version"),
    "no reader": (with_metadata(reader="\x1b[31m"), "does not say which model"),
    "rate of none": (with_metadata(fps="0"), "times cannot be"),
    "rate of many": (with_metadata(fps="301"), "times cannot be"),
    "rate by nothing": (with_metadata(fps="25/0"), "how its time is counted"),
    "rate by 00": (with_metadata(fps="25/00"), "how its time is counted"),
    "rate of a billion digits": (with_metadata(fps="1e999999999"), "how its time is counted"),
    "clock": (with_metadata(time_base="1/999999999999"), "times cannot be"),
    "coarse clock": (with_metadata(time_base="1/2"), "times do not rise"),
    "no duration": (packed(lambda _, metadata: drop(metadata, "duration")), "damaged"),
    "duration in words": (with_metadata(duration="long"), "damaged"),
    "not a duration": (with_metadata(duration="nan"), "times cannot be"),
    "endless": (with_metadata(duration="1e300"), "times cannot be"),
    "too short": (with_metadata(duration="0.1"), "times do not rise"),
    "missing": (packed(lambda tensors, _: drop(tensors, "kp")), "does not hold"),
    "more": (packed(lambda tensors, _: tensors.update(more=torch.zeros(1))), "does not hold"),
    "whole numbers": (with_tensor("tokens", lambda value: value.to(torch.int64)), "does not hold"),
    "doubles": (with_tensor("yaw", lambda value: value.double()), "does not hold"),
    "fewer angles": (with_tensor("yaw", lambda value: value[:-1]), "yaw has the shape (5,)"),
    "flat tokens": (with_tensor("tokens", lambda value: value[0]), "tokens has the shape (4, 8)"),
    "tokens of tokens": (with_tensor("tokens", lambda value: value[None]), "tokens has the shape"),
    "wide shift": (with_tensor("t", lambda value: torch.zeros(6, 4)), "t has the shape (6, 4), not (F, 3)"),
    "no frames": (
        packed(lambda tensors, _: tensors.update({name: value[:0] for name, value in tensors.items()})),
        "holds 0 frames",
    ),
    "not a number": (with_tensor("tokens", filled(float("nan"))), "numbers that no face has"),
    "infinite": (with_tensor("kp", filled(float("inf"))), "numbers that no face has"),
    "beyond float16": (with_tensor("t", filled(-1e5)), "numbers that no face has"),
    "time of none": (with_tensor("time_s", filled(float("nan"))), "times cannot be"),
    "time of the stars": (with_tensor("time_s", filled(1e300)), "times cannot be"),
    "time back": (with_tensor("time_s", filled(0.1)), "times do not rise"),
    "time before": (with_tensor("time_s", lambda value: value - 1), "times cannot be"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_template_is_refused_in_one_line(name: str):
    data, part = HOSTILE[name]
    with pytest.raises(InputError) as error:
        motion_clip_from_bytes(data, name="upload")
    line = str(error.value)
    assert line.startswith("upload: ")
    assert part in line
    assert line.isprintable()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_changed_byte_is_refused_or_harmless(data: st.DataObject):
    place = data.draw(st.integers(0, 1200))
    spoiled = bytearray(GOOD)
    spoiled[place] = data.draw(st.integers(0, 255))
    try:
        template = motion_clip_from_bytes(bytes(spoiled))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(template) == 6


def test_size_and_length_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save_motion_file(tmp_path / "take.safetensors", made_template(6))
    monkeypatch.setattr(format_module, "_LIMITS", MotionFileConfig(max_frames=5))
    with pytest.raises(InputError, match="holds 6 frames, not 1 to 5"):
        load_motion_file(path)
    monkeypatch.setattr(format_module, "_LIMITS", MotionFileConfig(max_bytes=1_000))
    with pytest.raises(InputError, match="is larger than"):
        load_motion_file(path)
