"""Real small videos through the whole of ``prepare``: what is kept, what is dropped, and what the files hold."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import partialmethod
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from personalive.errors import DeviceError, InputError, OutputError
from personalive.media.paths import alone_in
from personalive.progress import Progress
from personalive.synthetic import Identity, Performance, render
from personalive.training.data.prepare.clip_file import ClipWriter, _written, read_image, read_tensors
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.folder import RECORDS
from personalive.training.data.prepare.runner import prepare
from personalive.training.data.sets import PreparedSet
from personalive.vision.resize import Square, crop_and_resize
from support.clips import contents
from support.head_videos import SIDE_PX, heads, write_heads, write_images
from support.prepared import SETTINGS, SIZE_PX, Made, hashes


def index(out: Path) -> tuple[dict, list[dict]]:
    header, *clips = map(json.loads, (out / "index.jsonl").read_text().splitlines())
    return header, clips


def clip_of(made: Made, video: str, number: int = 0) -> tuple[dict, dict[str, np.ndarray], Path]:
    clip = [clip for clip in index(made.out)[1] if clip["video"] == video][number]
    path = made.out / "clips" / f"{clip['clip']}.safetensors"
    return clip, read_tensors(path, clip["frames"]), path.with_suffix(".mov")


def test_every_video_is_accounted_for(made: Made):
    report = made.report
    header, clips = index(made.out)
    assert (report.videos, report.videos_kept, report.clips) == (9, 5, 6)
    assert header["clips"] == len(clips) == 6
    frames = {clip["video"]: clip["frames"] for clip in clips}  # as long as their videos, whatever their rate
    assert [frames[name] for name in ("a 25.mp4", "b30.mp4", "deep/c2997.mkv")] == [30] * 3
    assert sum(clip["frames"] for clip in clips) == report.frames
    assert Counter({reason: counts["places"] for reason, counts in report.dropped.items()}) == {
        "unreadable": 2,
        "no face": 1,
        "too short": 1,
    }
    assert report.dropped["no face"]["frames"] == 20
    assert report.dropped["too short"]["frames"] == 9
    assert report.other_files == 1  # hidden ones are not even that


@pytest.mark.parametrize("video", ["a 25.mp4", "b30.mp4", "deep/c2997.mkv", "d_variable.mp4"])
def test_images_show_the_moments_that_the_index_says(made: Made, video: str):
    """The times are those of frames of the video, at most half a step off, and the pixels are those of that frame."""
    clip, tensors, images = clip_of(made, video)
    with av.open(str(made.videos / video)) as source:
        decoded = {
            float(frame.pts * frame.time_base): frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)
        }
    first = min(decoded)
    times = np.array(sorted(decoded)) - first
    shown = tensors["source_s"]
    assert all(np.abs(times - time).min() < 1e-9 for time in shown)
    due = clip["start_s"] + np.arange(clip["frames"]) / 25
    assert np.abs(shown - due).max() <= max(0.5 / 25, np.diff(times).max() / 2) + 0.1 / 25
    for number in (0, clip["frames"] // 2, clip["frames"] - 1):
        expected = read_image(images, tensors["spans"][number]).astype(float)
        errors = {time: np.abs(framed(image, clip["square"]) - expected).mean() for time, image in decoded.items()}
        best = min(errors, key=errors.__getitem__) - first
        assert best == pytest.approx(shown[number], abs=1e-9)
        assert min(errors.values()) < 2


def framed(image: np.ndarray, square: list[int]) -> np.ndarray:
    return crop_and_resize(image, Square(*square), SIZE_PX).astype(float)


def test_a_cut_splits_a_video_at_its_very_frame(made: Made):
    one, other = (clip_of(made, "e_cut.mp4", number)[0] for number in (0, 1))
    assert (one["frames"], other["frames"]) == (20, 20)
    assert (one["shot"], other["shot"]) == (0, 1)
    assert other["start_s"] == pytest.approx(20 / 25)


def test_boxes_lie_where_the_features_are(made: Made):
    clip, tensors, _ = clip_of(made, "a 25.mp4")
    who, performance = Identity.sample(0), Performance.sample(0, fps=1000, intensity=0.3)
    for number in (0, 14, 29):
        truth = render(who, performance.at(40 * number), SIDE_PX, supersample=1)
        face, eye, other, mouth = tensors["boxes"][number]
        x, y, side = clip["square"]
        regions = (truth.face_mask, truth.eyes_mask, truth.mouth_mask)  # a bald head's face reaches above its box
        for boxes, mask, share in zip(([face], [eye, other], [mouth]), regions, (0.1, 0.06, 0.06), strict=True):
            rows, columns = np.nonzero(mask)
            centre = np.array([columns.mean(), rows.mean()])
            middle = np.mean([(box[:2] + box[2:]) / 2 for box in boxes], axis=0) * side / SIZE_PX + (x, y)
            assert np.abs(middle - centre).max() < share * SIDE_PX
        assert eye[2] < other[2]
    assert tensors["found"].tolist() == [1, 0] * 15
    assert clip["landmarks"] == "shares"  # without YuNet's file
    assert 0 <= tensors["boxes"].min() <= tensors["boxes"].max() <= SIZE_PX


def test_videos_can_be_played_and_offsets_are_those_of_their_frames(made: Made):
    clip, tensors, video = clip_of(made, "a 25.mp4")
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.average_rate == 25
        assert [frame.time for frame in frames] == pytest.approx([k / 25 for k in range(clip["frames"])])
    for number in (0, 17):
        played = frames[number].to_ndarray(format="rgb24").astype(int)
        assert np.abs(played - read_image(video, tensors["spans"][number])).mean() < 2


def test_nothing_in_a_set_names_a_place_on_this_machine(made: Made):
    for path in made.out.rglob("*.*"):
        assert str(made.videos).encode() not in path.read_bytes(), path.name
    report = (made.out / "report.md").read_text()
    assert "| h_broken.mp4 | 0 | 0 | 0 | 1 unreadable |" in report
    assert "i_sound.mp4: has sound but no video" in report
    assert json.loads((made.out / "report.json").read_text())["set"]["clips"] == 6


def test_the_contact_sheet_has_a_row_per_clip_with_boxes(made: Made):
    sheet = cv2.imread(str(made.out / "contact_sheet.png"))
    assert sheet is not None
    assert sheet.shape[0] == 6 * (192 + 6 + 22)
    assert (sheet == (60, 160, 255)).all(axis=2).any()  # the mouth's colour, BGR


# --- drops --------------------------------------------------------------------------------------------------------


def smeared() -> Iterable[np.ndarray]:
    return (cv2.GaussianBlur(head, (0, 0), 3) for head in heads(2, MOMENTS))


def two_heads() -> Iterable[np.ndarray]:
    for one, other in zip(heads(0, MOMENTS, side_px=80), heads(2, MOMENTS, side_px=80), strict=True):
        page = np.full((160, 160, 3), 128, np.uint8)
        page[40:120, :80], page[40:120, 80:] = one, other
        yield page


MOMENTS = [k / 25 for k in range(16)]


@pytest.mark.parametrize(
    ("write", "options", "reason"),
    [
        (lambda path: write_heads(path, range(16), Fraction(1, 15), side_px=96), {}, "low frame rate"),
        (lambda path: write_heads(path, range(16), side_px=120), {"size_px": 256}, "low resolution"),
        (lambda path: write_images(path, smeared()), {}, "blurred"),
        (lambda path: write_images(path, two_heads()), {"framing_scale": 4.0}, "several faces"),
    ],
)
def test_clips_are_dropped_for_a_reason_and_an_empty_set_is_an_error(tmp_path: Path, write, options, reason: str):
    (tmp_path / "videos").mkdir()
    write(tmp_path / "videos" / "one.mp4")
    with pytest.raises(InputError, match=f"not one clip could be kept \\(1 {reason}\\); see .*report.md"):
        prepare(tmp_path / "videos", tmp_path / "set", **SETTINGS | options)
    assert f"| {reason} | 1 |" in (tmp_path / "set" / "report.md").read_text()
    assert list((tmp_path / "set" / "clips").iterdir()) == []


def test_long_shots_become_several_clips(one_video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PrepareConfig, "__init__", partialmethod(PrepareConfig.__init__, max_clip_s=0.8))
    prepare(one_video(frames=50), tmp_path / "set", **SETTINGS)
    _, clips = index(tmp_path / "set")
    assert [(clip["frames"], clip["shot"], clip["start_s"]) for clip in clips] == [(20, 0, 0.0), (20, 0, 0.8)]


def test_a_video_cut_off_gives_what_can_be_read(one_video, tmp_path: Path):
    videos = one_video(frames=50)
    video = videos / "one.mp4"
    with av.open(str(video)) as source, av.open(str(videos / "cut.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    whole = (videos / "cut.ts").read_bytes()
    video.unlink()
    (videos / "cut.ts").write_bytes(whole[: len(whole) * 3 // 4])
    report = prepare(videos, tmp_path / "set", **SETTINGS)
    assert report.clips == 1
    assert 25 <= report.frames < 50


def test_what_is_no_file_or_cannot_be_shown_is_named_and_the_rest_is_kept(one_video, tmp_path: Path):
    videos = one_video(frames=25)
    os.mkfifo(videos / "pipe.mp4")
    with av.open(str(videos / "matrix.ts"), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=64)
        stream.pix_fmt = "yuv420p"
        matrix = BitStreamFilterContext("h264_metadata=matrix_coefficients=8", stream)
        for number in [*range(5), None]:
            frame = None
            if number is not None:
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in stream.encode(frame):
                out.mux(matrix.filter(packet))
    report = prepare(videos, tmp_path / "set", **SETTINGS)
    assert report.clips == 1
    records = [json.loads(path.read_text()) for path in (tmp_path / "set" / RECORDS).glob("*.json")]
    notes = {record["video"]: record["drops"][0]["note"] for record in records if record["drops"]}
    assert notes["pipe.mp4"].startswith("pipe.mp4: is not an ordinary file")
    assert notes["matrix.ts"].startswith("matrix.ts: its colours are YCgCo")


# --- going on -----------------------------------------------------------------------------------------------------


def test_a_repeated_command_changes_nothing_and_says_all_is_done(made: Made, tmp_path: Path):
    out = tmp_path / "set"
    shutil.copytree(made.out, out)
    clips, told = contents(out / "clips"), []
    prepare(made.videos, out, progress=told.append, **SETTINGS)
    assert hashes(out) == hashes(made.out)
    assert contents(out / "clips") == clips  # not even written again
    assert told == []


def test_workers_and_what_is_missing_make_no_difference(made: Made, tmp_path: Path):
    """Half of the set is there, with leftovers of an interrupted run and a damaged clip; two workers do the rest."""
    out = tmp_path / "set"
    shutil.copytree(made.out, out)
    for name in ("index.jsonl", "report.md", "contact_sheet.png"):
        (out / name).unlink()
    first, second, third, *_ = sorted((out / "videos").iterdir())
    first.unlink()
    second.write_text("{")
    (video,) = (out / "clips").glob(f"{third.stem}*.mov")
    video.write_bytes(video.read_bytes()[:100])
    (out / "clips" / ".personalive-x.tmp").write_bytes(b"half")
    told: list[Progress] = []
    prepare(made.videos, out, progress=told.append, **SETTINGS | {"workers": 2})
    assert hashes(out) == hashes(made.out)
    assert told[-1].done == 1
    assert told[-1].note.startswith("9 of 9 videos, ")
    assert told[-1].note.endswith(" per second, 0:00 left")


def test_a_changed_video_is_done_again_and_one_that_has_gone_keeps_its_clips(one_video, tmp_path: Path):
    videos, out = one_video(frames=16), tmp_path / "set"
    prepare(videos, out, **SETTINGS)
    write_heads(videos / "one.mp4", range(18))
    assert prepare(videos, out, **SETTINGS).frames == 18
    (videos / "one.mp4").rename(videos / "two.mp4")
    assert prepare(videos, out, **SETTINGS).frames == 36


# --- wrong folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "kind", "says"),
    [
        ("videos/set", OutputError, "is inside .*videos; choose a folder beside it"),
        ("videos", OutputError, "is inside"),
        ("file", OutputError, "is a file; choose another folder"),
        ("file/set", OutputError, "cannot be written .*; choose another folder"),
        ("full", OutputError, "holds other things; choose a new or an empty folder"),
        ("damaged", OutputError, "its set.json is damaged"),
        ("newer", OutputError, "holds a set of version 99, not 1"),
        ("other", OutputError, "was begun with size 128, not 96; use the same options"),
    ],
)
def test_folders_that_cannot_hold_the_set(one_video, tmp_path: Path, out: str, kind: type, says: str):
    videos = one_video()
    (tmp_path / "file").write_text("x")
    for name in ("full", "damaged", "newer", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "damaged" / "set.json").write_text("[")
    header = {"format": "personalive training set", "version": 99, "settings": {}}
    (tmp_path / "newer" / "set.json").write_text(json.dumps(header))
    (tmp_path / "other" / "set.json").write_text(json.dumps(header | {"version": 1, "settings": {"size_px": 128}}))
    before = contents(tmp_path)
    with pytest.raises(kind, match=says) as caught:
        prepare(videos, tmp_path / out, **SETTINGS)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "says"), [("gone", "no such folder"), ("file", "is a file"), ("empty", "holds no video")]
)
def test_folders_without_videos(tmp_path: Path, name: str, says: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=says):
        prepare(tmp_path / name, tmp_path / "set", **SETTINGS)
    assert not (tmp_path / "set").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(one_video, tmp_path: Path, monkeypatch):
    def full(self: object, image: np.ndarray) -> None:
        with _written(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ClipWriter, "add", full)
    with pytest.raises(OutputError, match="No space left on device\\); free some space and repeat the command"):
        prepare(one_video(), tmp_path / "set", **SETTINGS)
    assert [path.name for path in (tmp_path / "set").rglob("*") if path.is_file()] == ["set.json"]


def test_two_commands_do_not_work_on_one_set(one_video, tmp_path: Path):
    (tmp_path / "set").mkdir()
    with alone_in(tmp_path / "set"), pytest.raises(OutputError, match="another command is at work there"):
        prepare(one_video(), tmp_path / "set", **SETTINGS)


@pytest.mark.full
def test_killed_at_any_moment_the_command_goes_on_to_the_same_set(made: Made, tmp_path: Path):
    """Killed without warning, workers and all, again and again, ever later; then left to finish."""
    code = (
        "import sys; from personalive.training.data.prepare.runner import prepare\n"
        f"prepare({str(made.videos)!r}, 'set', **{SETTINGS!r})"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for clips in (0, 3):
        with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) as process:
            while process.poll() is None and len(list(tmp_path.glob("set/videos/*.json"))) <= clips:
                time.sleep(0.005)
            assert process.poll() is None, "finished before it was killed"
            process.send_signal(signal.SIGKILL)
        with pytest.raises(InputError, match="is not finished"):
            PreparedSet(tmp_path / "set")
    report = prepare(made.videos, tmp_path / "set", **SETTINGS)
    assert report == made.report
    assert hashes(tmp_path / "set") == hashes(made.out)


def test_a_worker_that_is_killed_ends_the_command_with_one_line(one_video, tmp_path: Path):
    videos = one_video(frames=40)
    for name in "bcdef":
        os.link(videos / "one.mp4", videos / f"{name}.mp4")

    def kill() -> None:
        end = time.monotonic() + 300
        while not any(tmp_path.glob("set/videos/*.json")) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DeviceError, match="fewer --workers to go on"):
        prepare(videos, tmp_path / "set", **SETTINGS | {"workers": 2})
    killer.join()
    assert not list((tmp_path / "set").rglob(".personalive-*"))
