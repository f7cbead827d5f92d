"""Motion templates: what a clip says, kept bit for bit, replayed as the clip plays, and refused where unfit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from personalive.config import ContactSheetConfig, TemplateConfig
from personalive.errors import InputError, OutputError
from personalive.media import VideoWriter
from personalive.models.bundle import Networks
from personalive.streaming import animate as module
from personalive.streaming import template as format_module
from personalive.streaming.animate import animate
from personalive.streaming.engine import Engine
from personalive.streaming.record import RecordOptions, record
from personalive.streaming.state import Motion
from personalive.streaming.template import (
    Template,
    is_template,
    load_template,
    motion_reader,
    reader_of,
    save_template,
    template_bytes,
    template_from_bytes,
)
from personalive.vision.keypoints import HeadPose
from support.clips import Film, read_film, save_picture, write_clip

Pictures = Callable[[int, int], np.ndarray]
SIDE = 64
POSE = [field.name for field in dataclasses.fields(HeadPose)]


def made_template(frames: int = 6, reader: str = "0123456789abcdef", **changes: Any) -> Template:
    """Random motion of the small model's shape at 25 fps."""
    source = torch.Generator().manual_seed(frames)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source)

    poses = HeadPose(
        kp=draw(frames, 21, 3),
        yaw=draw(frames),
        pitch=draw(frames),
        roll=draw(frames),
        t=draw(frames, 3),
        scale=draw(frames, 1).abs() + 1,
    )
    values: dict[str, Any] = {
        "motion": Motion(draw(1, frames, 4, 8), poses),
        "times_s": np.arange(frames) / 25,
        "cuts": np.arange(frames) % 4 == 3,
        "reader": reader,
        "fps": Fraction(25),
        "duration_s": frames / 25,
    }
    return Template(**values | changes)


def assert_equal(one: Template, other: Template) -> None:
    assert torch.equal(one.motion.tokens, other.motion.tokens)
    for name in POSE:
        assert torch.equal(getattr(one.motion.poses, name), getattr(other.motion.poses, name)), name
    assert np.array_equal(one.times_s, other.times_s)
    assert np.array_equal(one.cuts, other.cuts)
    beside = ("reader", "fps", "duration_s", "time_base")
    assert [getattr(one, name) for name in beside] == [getattr(other, name) for name in beside]


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
    assert_equal(template_from_bytes(template_bytes(template)), template)


def test_the_file_is_what_the_format_says(tmp_path: Path):
    template = made_template(5)
    path = save_template(tmp_path / "take.safetensors", template)
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
    assert_equal(load_template(path), template)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_motion_comes_back_bit_for_bit(networks: Networks, dtype: torch.dtype):
    engine = Engine(networks)
    engine.dtype = dtype  # as if its networks were: only where motion is put depends on it
    template = made_template(6, reader_of(engine))
    half = dataclasses.replace(template, motion=Motion(template.motion.tokens.to(dtype), template.motion.poses))
    back = template_from_bytes(template_bytes(half), engine)
    assert back.motion.tokens.dtype == dtype
    assert_equal(back, half)


def test_a_template_is_known_by_its_content(tmp_path: Path):
    whole = template_bytes(made_template())
    files = {
        "take.bin": whole,
        "weights.bin": save({"x": torch.zeros(3)}),
        "text.txt": b"no template" * 100,
        "short": b"PL",
        "damaged.safetensors": b"anything",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert {name for name in files if is_template(tmp_path / name)} == {"take.bin", "damaged.safetensors"}
    with pytest.raises(InputError, match="no such file"):
        is_template(tmp_path / "gone.safetensors")


# --- whom it fits -----------------------------------------------------------------------------------------------


def test_the_reader_is_the_same_in_every_format_and_another_after_training(networks: Networks):
    encoder, extractor = networks.motion_encoder, networks.motion_extractor
    known = motion_reader(encoder, extractor)
    for dtype in (torch.float16, torch.bfloat16):
        copies = [type(net)(net_config).to(dtype) for net, net_config in configs(networks)]
        for copy, net in zip(copies, (encoder, extractor), strict=True):
            copy.load_state_dict(net.state_dict())
        assert motion_reader(copies[0], copies[1]) == known
    trained = type(encoder)(networks.config.motion_encoder)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    name = next(name for name, value in state.items() if value.ndim > 1)
    state[name].flatten()[0].neg_()
    trained.load_state_dict(state)
    assert motion_reader(trained, extractor) != known
    assert motion_reader(extractor, encoder) != known


def configs(networks: Networks):
    config = networks.config
    yield networks.motion_encoder, config.motion_encoder
    yield networks.motion_extractor, config.motion_extractor


def test_motion_that_another_model_read_is_refused(engine: Engine):
    data = template_bytes(made_template(6, "f" * 16))
    with pytest.raises(InputError, match=r"^take: was read by another model \(f{16}, this one is .*--weights$"):
        template_from_bytes(data, engine, name="take")
    odd = made_template(6, reader_of(engine))
    narrow = dataclasses.replace(odd, motion=Motion(odd.motion.tokens[..., :-1], odd.motion.poses))
    with pytest.raises(InputError, match="another model"):  # it says that it fits
        template_from_bytes(template_bytes(narrow), engine)


# --- hostile files ----------------------------------------------------------------------------------------------


def packed(change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> bytes:
    """A good file's tensors and metadata, changed."""
    raw = template_bytes(made_template(6))
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


GOOD = template_bytes(made_template(6))
HOSTILE = {
    "empty": (b"", "is not a motion template"),
    "weights": (save({"x": torch.zeros(3)}), "is not a motion template"),
    "half": (GOOD[: len(GOOD) // 2], "damaged or cut off"),
    "header cut": (GOOD[:100], "is not a motion template"),
    "more behind": (GOOD + b"0" * 9, "damaged or cut off"),
    "endless header": ((1 << 62).to_bytes(8, "little") + GOOD[8:], "is not a motion template"),
    "deep header": (with_header(b'{"a":' + b"[" * 9000), "is not a motion template"),
    "long number": (with_header(b'{"a":' + b"9" * 9000 + b"}"), "is not a motion template"),
    "list": (with_header(b"[1, 2]"), "is not a motion template"),
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
        template_from_bytes(data, name="upload")
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
        template = template_from_bytes(bytes(spoiled))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(template) == 6


def test_size_and_length_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save_template(tmp_path / "take.safetensors", made_template(6))
    monkeypatch.setattr(format_module, "_LIMITS", TemplateConfig(max_frames=5))
    with pytest.raises(InputError, match="holds 6 frames, not 1 to 5"):
        load_template(path)
    monkeypatch.setattr(format_module, "_LIMITS", TemplateConfig(max_bytes=1_000))
    with pytest.raises(InputError, match="is larger than"):
        load_template(path)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save_template(tmp_path / "take.safetensors", made_template(6))
    before = path.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save_template(path, made_template(7))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


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


# --- films ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Studio:
    """A portrait, clips, and films of both clips and templates with what was encoded."""

    folder: Path
    engine: Engine
    pictures: Pictures
    monkeypatch: pytest.MonkeyPatch

    def clip(self, ticks: range | list[int], **options: Any) -> Path:
        return write_clip(self.folder / "clip.mp4", self.pictures(len(ticks), 2), ticks, **options)

    def take(self, clip: Path, **options: Any) -> Path:
        path = self.folder / "take.safetensors"
        record(clip, path, RecordOptions(framing="center", **options), engine=self.engine)
        return path

    def film(self, driving: Path, name: str, **options: Any) -> tuple[Film, list[np.ndarray]]:
        encoded: list[np.ndarray] = []

        class Keeping(VideoWriter):
            def write(self, image, time, duration=None):
                encoded.append(image.copy())
                super().write(image, time, duration)

        portrait = save_picture(self.folder / "portrait.png", self.pictures(1, 1)[0])
        with self.monkeypatch.context() as patch:
            patch.setattr(module, "VideoWriter", Keeping)
            animate(portrait, driving, self.folder / name, engine=self.engine, framing="center", **options)
        return read_film(self.folder / name), encoded


@pytest.fixture
def studio(tmp_path: Path, engine: Engine, pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> Studio:
    return Studio(tmp_path, engine, pictures, monkeypatch)


@pytest.mark.parametrize(
    ("ticks", "time_base", "options"),
    [
        (range(11), Fraction(1, 25), {}),
        ([0, 1001, 2002, 3003, 5005], Fraction(1, 30000), {"seed": 3, "expression": 0.5, "pose": "relative"}),
        (
            [0, 40, 73, 140, 141, 300],
            Fraction(1, 1000),
            {"head_motion": 2.0, "smoothing": 0.5, "keyframe_threshold": 0},
        ),
    ],
    ids=["plain", "ntsc", "phone"],
)
def test_a_replayed_clip_is_the_clips_film_bit_for_bit(
    studio: Studio, ticks: range | list[int], time_base: Fraction, options: dict[str, Any]
):
    clip = studio.clip(ticks, time_base=time_base)
    wanted, encoded = studio.film(clip, "clip_film.mp4", **options)
    found, again = studio.film(studio.take(clip), "take_film.mp4", **options)
    assert np.array_equal(np.stack(encoded), np.stack(again))
    assert np.array_equal(wanted.images, found.images)
    assert wanted.times == found.times == [tick * time_base for tick in ticks]
    films = [(studio.folder / f"{name}_film.mp4").read_bytes() for name in ("clip", "take")]
    assert films[0] == films[1]  # lengths and rates too
    records = [json.loads((studio.folder / f"{name}_film.json").read_text()) for name in ("clip", "take")]
    for key in ("frames", "duration_s", "keyframes", "options"):
        assert records[0][key] == records[1][key]


def test_cuts_and_mirrors_are_recorded(studio: Studio):
    dark, bright = (np.full((SIDE, SIDE, 3), grey, np.uint8) for grey in (40, 220))
    bright[:, :20] = 10
    clip = write_clip(studio.folder / "cut.mp4", [dark] * 9 + [bright] * 6, range(15))
    _, encoded = studio.film(clip, "film.mp4", mirror=True)
    template = load_template(take := studio.take(clip, mirror=True), studio.engine)
    assert np.flatnonzero(template.cuts).tolist() == [9]
    _, again = studio.film(take, "again.mp4")
    assert np.array_equal(np.stack(encoded), np.stack(again))
    plain = load_template(studio.take(clip), studio.engine)
    assert not torch.equal(plain.motion.tokens, template.motion.tokens)


def test_a_part_of_a_template_plays_at_its_times_without_sound(studio: Studio):
    take = studio.take(studio.clip(range(25), audio_s=1.0))
    film, _ = studio.film(take, "film.mp4", start_s=0.2, end_s=0.52)
    assert film.times == [Fraction(i, 25) for i in range(8)]
    assert film.audio_s == 0


def test_side_by_side_and_contact_sheet_do_without_a_driver(studio: Studio):
    take = studio.take(studio.clip(range(5)))
    sheet = studio.folder / "sheet.png"
    _, narrow = studio.film(take, "narrow.mp4")
    _, wide = studio.film(take, "wide.mp4", side_by_side=True, contact_sheet=str(sheet))
    assert np.array_equal(np.stack(wide)[:, :, SIDE:], np.stack(narrow))
    assert np.array_equal(wide[0][:, :SIDE], studio.pictures(1, 1)[0])
    size = ContactSheetConfig()
    step = size.cell_px + size.gap_px
    width, height = png_size(sheet)
    assert (width, height) == (6 * step + size.gap_px, step + size.gap_px)  # portrait and five results


def png_size(path: Path) -> tuple[int, int]:
    raw = path.read_bytes()
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def test_motion_cannot_be_mirrored_afterwards(studio: Studio):
    take = studio.take(studio.clip(range(5)))
    with pytest.raises(InputError, match=r"take\.safetensors: .*record it with --mirror"):
        studio.film(take, "film.mp4", mirror=True)
    assert not (studio.folder / "film.mp4").exists()


def test_a_template_of_another_model_makes_no_film(studio: Studio):
    save_template(studio.folder / "other.safetensors", made_template(6))
    with pytest.raises(InputError, match=r"other\.safetensors: was read by another model"):
        studio.film(studio.folder / "other.safetensors", "film.mp4")


# --- recording --------------------------------------------------------------------------------------------------


def test_a_recording_tells_how_far_it_is_and_what_it_made(studio: Studio):
    heard = []
    out = studio.folder / "take.safetensors"
    report = record(
        studio.clip(range(6)), out, RecordOptions(framing="center"), engine=studio.engine, progress=heard.append
    )
    assert [(p.frames, p.total) for p in heard] == [(4, 6), (6, 6)]
    assert (report.output, report.weights, report.warnings) == (str(out), "small", [])
    assert_equal(load_template(out), report.template)
    assert len(report.template) == 6


def test_a_recording_is_bounded_and_never_replaces_its_clip(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    clip = studio.clip(range(9))
    with pytest.raises(OutputError, match=r"should end in \.safetensors"):
        record(clip, clip, engine=studio.engine)
    linked = studio.folder / "clip.safetensors"
    linked.symlink_to(clip)
    with pytest.raises(OutputError, match="also an input"):
        record(clip, linked, engine=studio.engine)
    monkeypatch.setattr(TemplateConfig, "__init__", lambda self: object.__setattr__(self, "max_frames", 8))
    with pytest.raises(InputError, match="more than 8 frames: record a part of it with --start and --end"):
        record(clip, studio.folder / "t.safetensors", RecordOptions(framing="center"), engine=studio.engine)
    assert not (studio.folder / "t.safetensors").exists()


def test_a_recording_knows_no_portrait_to_return_to():
    with pytest.raises(InputError, match="give hold or error"):
        RecordOptions(no_face="neutral")
