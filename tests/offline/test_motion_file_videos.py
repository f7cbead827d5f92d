"""Motion files recorded from clips and replayed: the clip's video, bit for bit."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from personalive.errors import InputError, OutputError
from personalive.offline.config import ContactSheetConfig, MotionFileConfig
from personalive.offline.motion_file import load_motion_file, save_motion_file
from personalive.offline.record import RecordOptions, record
from support.clips import write_clip
from support.small_model import SMALL_SIZE_PX as SIDE
from support.studio import Studio
from support.templates import assert_equal, made_template

# --- videos --------------------------------------------------------------------------------------------------------


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
def test_a_replayed_clip_is_the_clips_video_bit_for_bit(
    studio: Studio, ticks: range | list[int], time_base: Fraction, options: dict[str, Any]
):
    clip = studio.clip(ticks=ticks, time_base=time_base)
    options = {"credentials": False, **options}  # no two signatures are equal
    wanted, encoded = studio.encoded(clip, name="clip_video.mp4", **options)
    found, again = studio.encoded(studio.record(clip), name="take_video.mp4", **options)
    assert np.array_equal(np.stack(encoded), np.stack(again))
    assert np.array_equal(wanted.images, found.images)
    assert wanted.times == found.times == [tick * time_base for tick in ticks]
    videos = [(studio.folder / f"{name}_video.mp4").read_bytes() for name in ("clip", "take")]
    assert videos[0] == videos[1]  # lengths and rates too
    records = [json.loads((studio.folder / f"{name}_video.json").read_text()) for name in ("clip", "take")]
    for key in ("frames", "duration_s", "keyframes", "options"):
        assert records[0][key] == records[1][key]


def test_cuts_and_mirrors_are_recorded(studio: Studio):
    dark, bright = (np.full((SIDE, SIDE, 3), grey, np.uint8) for grey in (40, 220))
    bright[:, :20] = 10
    clip = write_clip(studio.folder / "cut.mp4", [dark] * 9 + [bright] * 6, range(15))
    _, encoded = studio.encoded(clip, name="video.mp4", mirror=True)
    template = load_motion_file(take := studio.record(clip, mirror=True), studio.engine)
    assert np.flatnonzero(template.cuts).tolist() == [9]
    _, again = studio.encoded(take, name="again.mp4")
    assert np.array_equal(np.stack(encoded), np.stack(again))
    plain = load_motion_file(studio.record(clip), studio.engine)
    assert not torch.equal(plain.motion.tokens, template.motion.tokens)


def test_a_part_of_a_template_plays_at_its_times_without_sound(studio: Studio):
    take = studio.record(studio.clip(25, audio_s=1.0))
    video, _ = studio.encoded(take, name="video.mp4", start_s=0.2, end_s=0.52)
    assert video.times == [Fraction(i, 25) for i in range(8)]
    assert video.audio_s == 0


def test_side_by_side_and_contact_sheet_do_without_a_driver(studio: Studio):
    take = studio.record(studio.clip(5))
    sheet = studio.folder / "sheet.png"
    _, narrow = studio.encoded(take, name="narrow.mp4")
    _, wide = studio.encoded(take, name="wide.mp4", side_by_side=True, contact_sheet=str(sheet))
    assert np.array_equal(np.stack(wide)[:, :, SIDE:], np.stack(narrow))
    assert np.array_equal(wide[0][:, :SIDE], studio.make_images(1, 1)[0])
    size = ContactSheetConfig()
    step = size.cell_px + size.gap_px
    width, height = png_size(sheet)
    assert (width, height) == (6 * step + size.gap_px, step + size.gap_px)  # portrait and five results


def png_size(path: Path) -> tuple[int, int]:
    raw = path.read_bytes()
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def test_motion_cannot_be_mirrored_afterwards(studio: Studio):
    take = studio.record(studio.clip(5))
    with pytest.raises(InputError, match=r"take\.safetensors: .*record it with --mirror"):
        studio.encoded(take, name="video.mp4", mirror=True)
    assert not (studio.folder / "video.mp4").exists()


def test_a_template_of_another_model_makes_no_video(studio: Studio):
    save_motion_file(studio.folder / "other.safetensors", made_template(6))
    with pytest.raises(InputError, match=r"other\.safetensors: was read by another model"):
        studio.encoded(studio.folder / "other.safetensors", name="video.mp4")


# --- recording --------------------------------------------------------------------------------------------------


def test_a_recording_tells_how_far_it_is_and_what_it_made(studio: Studio):
    heard = []
    out = studio.folder / "take.safetensors"
    report = record(studio.clip(6), out, RecordOptions(framing="center"), engine=studio.engine, progress=heard.append)
    assert [(p.frames, p.total) for p in heard] == [(4, 6), (6, 6)]
    assert (report.output, report.weights, report.warnings) == (str(out), "small", [])
    assert_equal(load_motion_file(out), report.motion)
    assert len(report.motion) == 6


def test_a_recording_is_bounded_and_never_replaces_its_clip(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    clip = studio.clip(9)
    with pytest.raises(OutputError, match=r"should end in \.safetensors"):
        record(clip, clip, engine=studio.engine)
    linked = studio.folder / "clip.safetensors"
    linked.symlink_to(clip)
    with pytest.raises(OutputError, match="also an input"):
        record(clip, linked, engine=studio.engine)
    monkeypatch.setattr(MotionFileConfig, "__init__", lambda self: object.__setattr__(self, "max_frames", 8))
    with pytest.raises(InputError, match="more than 8 frames: record a part of it with --start and --end"):
        record(clip, studio.folder / "t.safetensors", RecordOptions(framing="center"), engine=studio.engine)
    assert not (studio.folder / "t.safetensors").exists()


def test_a_recording_knows_no_portrait_to_return_to():
    with pytest.raises(InputError, match="give hold or error"):
        RecordOptions(no_face="neutral")
