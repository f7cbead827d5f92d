"""Motion files: kept bit for bit, cut into parts, and refused by models that did not read them."""

from __future__ import annotations

import dataclasses
import json
import os
from copy import deepcopy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from personalive.engine.engine import Engine
from personalive.engine.state import Motion
from personalive.errors import InputError, OutputError
from personalive.models.networks import Networks
from personalive.offline.motion_file import (
    engine_motion_digest,
    is_motion_file,
    load_motion_file,
    motion_clip_from_bytes,
    motion_file_bytes,
    motion_networks_digest,
    save_motion_file,
)
from support.templates import assert_equal, made_template

# --- the format -------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 9),
    st.fractions(Fraction(1, 2), 300, max_denominator=10**6),
    st.sampled_from([Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 10**9)]),
)
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read(frames: int, fps: Fraction, time_base: Fraction):
    times = np.arange(frames) * 0.1
    template = made_template(frames, fps=fps, time_base=time_base, times_s=times, duration_s=frames * 0.1)
    assert_equal(motion_clip_from_bytes(motion_file_bytes(template)), template)


def test_the_file_is_what_the_format_says(tmp_path: Path):
    template = made_template(5)
    path = save_motion_file(tmp_path / "take.safetensors", template)
    raw = path.read_bytes()
    found = {name: (value.dtype, tuple(value.shape)) for name, value in load(raw).items()}
    assert found == {
        "tokens": (torch.float32, (5, 4, 8)),
        **dict.fromkeys(("yaw", "pitch", "roll"), (torch.float32, (5,))),
        "t": (torch.float32, (5, 3)),
        "scale": (torch.float32, (5, 1)),
        "kp": (torch.float32, (5, 21, 3)),
        "time_s": (torch.float64, (5,)),
        "cut": (torch.uint8, (5,)),
    }
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"] == {
        "format": "personalive.motion",
        "version": "1",
        "reader": template.reader,
        "fps": "25",
        "time_base": "1/90000",
        "duration": "0.2",
    }
    assert_equal(load_motion_file(path), template)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_motion_comes_back_bit_for_bit(networks: Networks, dtype: torch.dtype):
    engine = Engine(networks)
    engine.dtype = dtype  # as if its networks were: only where motion is put depends on it
    template = made_template(6, engine_motion_digest(engine))
    half = dataclasses.replace(template, motion=Motion(template.motion.tokens.to(dtype), template.motion.poses))
    back = motion_clip_from_bytes(motion_file_bytes(half), engine)
    assert back.motion.tokens.dtype == dtype
    assert_equal(back, half)


def test_a_template_is_known_by_its_content(tmp_path: Path):
    whole = motion_file_bytes(made_template())
    files = {
        "take.bin": whole,
        "weights.bin": save({"x": torch.zeros(3)}),
        "text.txt": b"no template" * 100,
        "short": b"PL",
        "damaged.safetensors": b"anything",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert {name for name in files if is_motion_file(tmp_path / name)} == {"take.bin", "damaged.safetensors"}
    with pytest.raises(InputError, match="no such file"):
        is_motion_file(tmp_path / "gone.safetensors")


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save_motion_file(tmp_path / "take.safetensors", made_template(6))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_motion_file(path, made_template(7))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- whom it fits -----------------------------------------------------------------------------------------------


def test_the_reader_is_the_same_in_every_format_and_another_after_training(networks: Networks):
    encoder, extractor = networks.motion_encoder, networks.motion_extractor
    known = motion_networks_digest(encoder, extractor)
    for dtype in (torch.float16, torch.bfloat16):
        copies = deepcopy(encoder).to(dtype), deepcopy(extractor).to(dtype)
        assert motion_networks_digest(*copies) == known
    trained = type(encoder)(networks.config.motion_encoder)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    name = next(name for name, value in state.items() if value.ndim > 1)
    state[name].flatten()[0].neg_()
    trained.load_state_dict(state)
    assert motion_networks_digest(trained, extractor) != known
    assert motion_networks_digest(extractor, encoder) != known


def test_motion_that_another_model_read_is_refused(engine: Engine):
    data = motion_file_bytes(made_template(6, "f" * 16))
    with pytest.raises(InputError, match=r"^take: was read by another model \(f{16}, this one is .*--weights$"):
        motion_clip_from_bytes(data, engine, name="take")
    odd = made_template(6, engine_motion_digest(engine))
    narrow = dataclasses.replace(odd, motion=Motion(odd.motion.tokens[..., :-1], odd.motion.poses))
    with pytest.raises(InputError, match="another model"):  # it says that it fits
        motion_clip_from_bytes(motion_file_bytes(narrow), engine)


# --- parts ------------------------------------------------------------------------------------------------------


def test_a_part_begins_at_zero_and_ends_before_its_end():
    template = made_template(10)
    part = template.part(0.08, 0.2)
    assert len(part) == 3
    assert part.times_s.tolist() == pytest.approx([0, 0.04, 0.08])
    assert part.duration_s == pytest.approx(0.12)
    assert torch.equal(part.motion.tokens, template.motion.tokens[:, 2:5])
    assert part.cuts.tolist() == [False, True, False]
    assert template.part(0.36, 9.0).duration_s == pytest.approx(0.04)


@pytest.mark.parametrize(("start", "end"), [(5.0, None), (0.2, 0.1), (-1.0, None), (None, float("nan")), (None, 0.0)])
def test_a_part_without_frames_is_refused(start: float | None, end: float | None):
    with pytest.raises(InputError, match=r"^take: "):
        made_template(10).part(start, end, name="take")
