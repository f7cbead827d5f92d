"""Videos end to end: as many frames as the clip, at its times, with its sound; records, interruptions, errors."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from personalive.engine.controls import Controls
from personalive.errors import InputError, OutputError, PersonaLiveError
from personalive.media.credentials import read_credentials
from personalive.offline.config import ContactSheetConfig
from personalive.offline.motion_file import engine_motion_digest
from personalive.progress import Progress
from support import c2pa_reader
from support.clips import read_video, save_image
from support.small_model import SMALL_SIZE_PX as SIDE
from support.studio import Noting, Studio

# --- frames and times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 11, 16, 17])
def test_one_frame_leaves_per_driving_frame(studio: Studio, frames: int):
    report, video = studio.animate(studio.clip(frames))
    assert report.frames == len(video.times) == frames
    assert video.times == [Fraction(i, 25) for i in range(frames)]
    assert video.images.shape[1:] == (SIDE, SIDE, 3)
    assert report.duration_s == pytest.approx(frames / 25, abs=1e-3)


@pytest.mark.parametrize(
    ("ticks", "time_base"),
    [
        ([0, 1, 2, 7, 8, 20, 21, 22, 23], Fraction(1, 30)),
        ([0, 1001, 2002, 3003, 5005], Fraction(1, 30000)),
        ([0, 40, 73, 140, 141, 300], Fraction(1, 1000)),
    ],
    ids=["holes", "ntsc", "phone"],
)
def test_times_are_those_of_the_clip_also_at_a_variable_rate(studio: Studio, ticks: list[int], time_base: Fraction):
    _, video = studio.animate(studio.clip(ticks=ticks, time_base=time_base))
    assert video.times == [tick * time_base for tick in ticks]


def test_frames_are_those_of_the_stream(studio: Studio):
    """Encoded frames against the engine called by hand: warm-up dropped, the tail padded, driven and cut off."""
    engine = Noting(studio.engine.networks)
    _, encoded = studio.encoded(studio.clip(6), engine=engine, seed=5)
    driven = np.stack(engine.driven)
    assert len(driven) == 8
    assert np.array_equal(driven[6], driven[5])
    assert np.array_equal(driven[7], driven[5])
    state = studio.engine.start(studio.make_images(1, 1)[0], seed=5)
    made = []
    for first in (0, 4):
        cut = max(
            (cut - first for cut in engine.cuts if first <= cut < first + 4), default=None
        )  # noise looks like cuts
        state, chunk = studio.engine.step(state, driven[first : first + 4], cut=cut)
        made.append(chunk)
    made += list(studio.engine.flush(state))
    assert np.array_equal(np.stack(encoded), np.concatenate([chunk.numpy() for chunk in made])[12:18])


def test_a_part_of_the_clip_begins_at_time_zero(studio: Studio):
    report, video = studio.animate(studio.clip(20), start_s=0.2, end_s=0.5)
    assert video.times == [Fraction(i, 25) for i in range(8)]
    assert report.frames == 8
    assert report.options["start_s"] == 0.2


def test_a_still_can_drive(studio: Studio):
    still = save_image(studio.folder / "still.jpg", studio.make_images(1, 8)[0], "JPEG")
    report, video = studio.animate(still)
    assert report.frames == len(video.times) == 50


# --- what is decided by options -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_video_and_another_seed_another(studio: Studio):
    driving = studio.clip(7)
    videos = [studio.animate(driving, name=f"{i}.mp4", seed=seed)[1].images for i, seed in enumerate((3, 3, 4))]
    assert np.array_equal(videos[0], videos[1])
    assert np.abs(videos[0].astype(int) - videos[2]).mean() > 1


def test_side_by_side_shows_portrait_driver_and_result(studio: Studio):
    driving = studio.clip(5)
    result = studio.animate(driving)[1].images.astype(int)
    wide = studio.animate(driving, name="wide.mp4", side_by_side=True)[1].images.astype(int)
    assert wide.shape == (5, SIDE, 3 * SIDE, 3)
    source = read_video(driving).images.astype(int)
    portrait = studio.make_images(1, 1)[0].astype(int)
    for place, wanted in enumerate((portrait[None], source, result)):
        panel = wide[:, :, place * SIDE : (place + 1) * SIDE]
        assert np.abs(panel - wanted).mean() < 8, place


def test_video_and_contact_sheet_carry_credentials_and_a_label_as_asked_for(studio: Studio):
    driving, sheet = studio.clip(4), studio.folder / "sheet.png"
    report, marked = studio.animate(driving, contact_sheet=str(sheet), visible_mark=True)
    for path, kind in ((report.output, "trained"), (sheet, "compositeWithTrained")):
        found = c2pa_reader.read(Path(path))
        assert found.whole
        (action,) = found.actions
        assert action["digitalSourceType"].endswith(f"/{kind}AlgorithmicMedia")
        assert action["softwareAgent"]["model"] == f"weights {engine_motion_digest(studio.engine)}"
    report, plain = studio.animate(driving, credentials=False)
    assert "no content credentials: they are turned off" in report.warnings
    assert read_credentials(Path(report.output)) is None
    differs = np.abs(marked.images.astype(int) - plain.images).mean(axis=(0, 3))
    assert differs[SIDE // 2 :].mean() > 10 * differs[: SIDE // 2].mean()


def test_the_whole_photograph_has_its_own_size_and_its_own_pixels_around_the_square(studio: Studio):
    photograph = cv2.resize(studio.make_images(1, 6)[0], (3 * SIDE + 1, 2 * SIDE), interpolation=cv2.INTER_CUBIC)
    save_image(studio.portrait, photograph)
    sheet = studio.folder / "sheet.png"
    video, given = studio.encoded(studio.clip(5), output_frame="portrait", contact_sheet=str(sheet))
    assert video.images.shape == (5, 2 * SIDE, 3 * SIDE, 3)
    left = (3 * SIDE + 1 - 2 * SIDE) // 2
    frames = np.stack(given)
    outside = [np.delete(image, np.s_[left : left + 2 * SIDE], axis=1) for image in (photograph[:, :-1], *given)]
    assert all(np.array_equal(image, outside[0]) for image in outside)
    assert np.abs(np.diff(frames.astype(int), axis=0)).max() > 20  # the middle performs
    record = json.loads((studio.folder / "video.json").read_text())
    assert record["options"]["output_frame"] == "portrait"
    assert [line for line in record["warnings"] if "last column" in line]


def test_the_whole_photograph_can_be_driven_by_a_motion_file(studio: Studio):
    save_image(studio.portrait, cv2.resize(studio.make_images(1, 6)[0], (2 * SIDE, 3 * SIDE)))
    clip = studio.clip(5)
    _, by_clip = studio.encoded(clip, output_frame="portrait", name="a.mp4")
    video, by_motion = studio.encoded(studio.record(clip), output_frame="portrait", name="b.mp4")
    assert video.images.shape == (5, 3 * SIDE, 2 * SIDE, 3)
    assert np.abs(np.stack(by_clip).astype(int) - np.stack(by_motion)).mean() < 1


def test_controls_hold_for_the_whole_video(studio: Studio):
    engine = Noting(studio.engine.networks)
    turned = {"expression": 0.5, "head_motion": 1.5, "pose": "relative", "smoothing": 0.25}
    report, _ = studio.animate(studio.clip(6), engine=engine, **turned)
    assert engine.controls_seen == [Controls(**turned)] * 2
    assert {name: report.options[name] for name in turned} == turned


def test_controls_as_they_are_change_nothing_and_others_do(studio: Studio):
    driving = studio.clip(6)
    usual = studio.animate(driving)[1].images
    plain = {"expression": 1.0, "head_motion": 1.0, "pose": "absolute", "smoothing": 0.0, "mirror": False}
    assert np.array_equal(studio.animate(driving, name="same.mp4", **plain)[1].images, usual)
    for number, (name, value) in enumerate({"expression": 0.0, "head_motion": 0.0, "pose": "relative"}.items()):
        other = studio.animate(driving, name=f"{number}.mp4", **{name: value})[1].images
        assert np.abs(other.astype(int) - usual).mean() > 0.5, name


def test_a_mirrored_clip_drives_and_shows_its_mirror_image(studio: Studio):
    driving = studio.clip(6)
    engines = [Noting(studio.engine.networks) for _ in range(2)]
    studio.animate(driving, engine=engines[0])
    _, video = studio.animate(driving, name="m.mp4", engine=engines[1], mirror=True, side_by_side=True)
    assert np.array_equal(np.stack(engines[1].driven), np.stack(engines[0].driven)[:, :, ::-1])
    shown, source = video.images[:, :, SIDE : 2 * SIDE].astype(int), read_video(driving).images.astype(int)
    assert np.abs(shown - source[:, :, ::-1]).mean() < 8 < np.abs(shown - source).mean()


@pytest.mark.parametrize("kept", [True, False])
def test_sound_is_kept_unless_it_is_not_wanted(studio: Studio, kept: bool):
    _, video = studio.animate(studio.clip(25, audio_s=1.0), audio=kept)
    assert video.audio_s == pytest.approx(1.0 if kept else 0.0, abs=0.06)


def test_a_contact_sheet_and_a_record_lie_beside_the_video(studio: Studio):
    sheet = studio.folder / "sheet.png"
    report, _ = studio.animate(studio.clip(5), contact_sheet=str(sheet), seed=11, keyframe_threshold=9.5)
    size = ContactSheetConfig()
    step = size.cell_px + size.gap_px
    with Image.open(sheet) as image:
        assert image.size == (6 * step + size.gap_px, 2 * step + size.gap_px)  # portrait and five frames
    record = json.loads((studio.folder / "video.json").read_text())
    assert record == dataclasses.asdict(report)
    assert record["options"]["seed"] == 11
    assert record["options"]["keyframe_threshold"] == 9.5
    assert record["inputs"]["portrait"] == str(studio.portrait)
    assert record["contact_sheet"] == str(sheet)
    assert (record["weights"], record["device"], record["dtype"]) == ("small", "cpu", "float32")
    assert (record["frames"], record["image_size_px"]) == (5, SIDE)


def test_keyframes_are_reported(studio: Studio):
    driving = studio.clip(37)
    assert studio.animate(driving, keyframe_threshold=0)[0].keyframes == 1
    assert studio.animate(driving, keyframe_threshold=float("inf"))[0].keyframes == 0


def test_a_record_without_keyframes_is_valid_json(studio: Studio):
    studio.animate(studio.clip(2), keyframe_threshold=float("inf"))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((studio.folder / "video.json").read_text(), parse_constant=refuse)


def test_progress_is_told_after_every_chunk_and_at_the_end(studio: Studio):
    heard: list[Progress] = []
    studio.animate(studio.clip(11), progress=heard.append)
    assert [p.frames for p in heard] == [4, 8, 11]
    assert [p.total for p in heard] == [11, 11, 11]
    assert all(p.fps > 0 for p in heard)


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_a_playable_part_and_no_video(studio: Studio, kind: type[BaseException]):
    driving = studio.clip(17)
    before = studio.left()

    def stop(progress: Progress) -> None:
        if progress.frames == 8:
            raise kind

    with pytest.raises(kind) as error:
        studio.animate(driving, progress=stop, contact_sheet=str(studio.folder / "sheet.png"))
    assert studio.left() - before == {"video.partial.mp4"}
    part = read_video(studio.folder / "video.partial.mp4")
    assert part.times == [Fraction(i, 25) for i in range(8)]
    assert any("video.partial.mp4" in note for note in error.value.__notes__)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_frames_that_were_finished_when_a_call_failed_are_in_the_part(studio: Studio, kind: type[BaseException]):
    engine, calls = Noting(studio.engine.networks), []
    step = engine.step

    def fails(*window: Any, **named: Any):
        calls.append(window)
        if len(calls) == 6:  # the first three calls give the ease-in
            raise kind
        return step(*window, **named)

    engine.step = fails
    with pytest.raises(kind):
        studio.animate(studio.clip(40), engine=engine)
    part = read_video(studio.folder / "video.partial.mp4")
    assert part.times == [Fraction(i, 25) for i in range(8)]


def test_an_older_video_survives_an_interruption(studio: Studio):
    driving = studio.clip(9)
    studio.animate(driving)
    kept = (studio.folder / "video.mp4").read_bytes(), (studio.folder / "video.json").read_bytes()

    def stop(progress: Progress) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        studio.animate(driving, progress=stop)
    assert kept == ((studio.folder / "video.mp4").read_bytes(), (studio.folder / "video.json").read_bytes())


@pytest.mark.parametrize(
    ("options", "kind", "part"),
    [
        ({"fps": 30}, InputError, "fps"),
        ({"name": "video.avi"}, OutputError, "video.avi"),
        ({"seed": -1}, InputError, "seed"),
        ({"expression": 2.5}, InputError, "expression 2.5: give a number from 0 to 2"),
        ({"pose": "free"}, InputError, "give absolute or relative"),
        ({"start_s": 50.0}, InputError, "start"),
        ({"output_frame": "image"}, InputError, "output frame image: use square or portrait"),
        ({"output_frame": "portrait", "side_by_side": True}, InputError, "leave one of the two out"),
        ({"output_frame": "portrait", "size_px": 128}, InputError, "leave the size out"),
        ({"contact_sheet": "sheet.bmp"}, OutputError, "sheet.bmp"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_writing(
    studio: Studio, options: dict[str, Any], kind: type[Exception], part: str
):
    driving = studio.clip(3)
    before = studio.left()
    with pytest.raises(kind) as error:
        studio.animate(driving, **options)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert studio.left() == before


def test_the_record_never_replaces_an_input(studio: Studio):
    studio.portrait = save_image(studio.folder / "video.json", studio.make_images(1, 1)[0])
    content = studio.portrait.read_bytes()
    with pytest.raises(PersonaLiveError, match="also an input"):
        studio.animate(studio.clip(3))
    assert studio.portrait.read_bytes() == content


def test_the_contact_sheet_is_not_the_portrait(studio: Studio):
    content = studio.portrait.read_bytes()
    with pytest.raises(OutputError) as error:
        studio.animate(studio.clip(3), contact_sheet=str(studio.portrait))
    assert "\n" not in str(error.value)
    assert studio.portrait.read_bytes() == content
