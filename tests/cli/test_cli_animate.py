"""Videos made through the command line with a very small model, and what is said about them."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from personalive.cli import animate as command
from personalive.cli import console
from personalive.cli.config import CliConfig
from personalive.cli.options import Backend, Dtype
from personalive.config import KeyframeConfig
from personalive.engine.controls import Controls, PoseMode
from personalive.progress import Progress
from personalive.runtime.load import DTYPES
from personalive.runtime.registry import BACKENDS
from personalive.vision.framing import FramingMode, NoFace
from personalive.vision.paste_back import OutputFrame
from support.clips import NOISE_FPS, read_video, write_noise
from support.small_model import SMALL_SIZE_PX


def test_the_plainest_command_names_video_and_record_after_both_inputs(run, place, portrait, driving, small_weights):
    done = run("animate", portrait, driving, "--weights", small_weights, "--framing", "center")
    video, record = place / "clip_by_me.mp4", place / "clip_by_me.json"
    assert (done.code, done.err) == (0, "")
    assert str(video) in done.out
    assert str(record) in done.out
    assert f"10 frames, {10 / NOISE_FPS:.2f} s" in done.out
    made = read_video(video)
    assert made.images.shape == (10, SMALL_SIZE_PX, SMALL_SIZE_PX, 3)
    assert not made.audio_s
    assert {path.name for path in place.iterdir()} == {"me.png", "clip.mp4", video.name, record.name}


def test_every_option_reaches_the_video(run, place, portrait, small_weights, monkeypatch):
    monkeypatch.setattr("personalive.engine.directions.MIN_AGREEMENT", -1.0)  # weights by chance
    clip = write_noise(place / "long.mp4", 25, sound=True)
    options = (
        "--device cpu --dtype float32 --vram 8 --seed 7 --steps 2 --start 0.2 --end 0.52 --size 48 --framing center "
        "--no-face neutral"
    )
    turned = "--expression 0.5 --mouth 0.5 --eyes 1.5 --head-motion 1.5 --pose relative --smoothing 0.25 --mirror"
    flags = (
        f"{turned} --no-audio --side-by-side --contact-sheet all.png --no-keyframes --no-credentials --visible-mark"
    )
    done = run("animate", portrait, clip, "-o", "f.mp4", "--weights", small_weights, *options.split(), *flags.split())
    assert (done.code, done.err) == (0, "")
    made = read_video(place / "f.mp4")
    assert made.images.shape == (8, 48, 3 * 48, 3)  # 0.20, 0.24, ... 0.48 s
    assert not made.audio_s
    record = json.loads((place / "f.json").read_text())
    assert record["options"] == {
        "seed": 7,
        "keyframe_threshold": "inf",
        "steps": 2,
        "framing": "center",
        "no_face": "neutral",
        "center_fallback": False,
        "start_s": 0.2,
        "end_s": 0.52,
        "audio": False,
        "mirror": True,
        "expression": 0.5,
        "mouth": 0.5,
        "eyes": 1.5,
        "head_motion": 1.5,
        "pose": "relative",
        "smoothing": 0.25,
        "size_px": 48,
        "output_frame": "square",
        "side_by_side": True,
        "credentials": False,
        "visible_mark": True,
        "contact_sheet": "all.png",
    }
    assert (record["device"], record["dtype"], record["weights"]) == ("cpu", "float32", str(small_weights))
    assert (record["vram"], record["decoder"]) == ("8", "AutoencoderKL")
    with Image.open(place / "all.png") as sheet:
        assert sheet.width > sheet.height
    assert str(place / "all.png") in done.out


def test_sound_is_kept_unless_told_otherwise(run, place, portrait, small_weights):
    clip = write_noise(place / "sound.mp4", 10, sound=True)
    assert run("animate", portrait, clip, "--weights", small_weights, "--framing", "center").code == 0
    assert read_video(place / "sound_by_me.mp4").audio_s


def test_a_larger_video_is_the_models_video_enlarged(run, place, portrait, driving, small_weights):
    common = ("animate", portrait, driving, "--weights", small_weights, "--framing", "center", "--dtype", "float32")
    assert run(*common, "-o", "small.mp4").code == 0
    assert run(*common, "-o", "large.mp4", "--size", 2 * SMALL_SIZE_PX).code == 0
    for small, large in zip(*(read_video(place / name).images for name in ("small.mp4", "large.mp4")), strict=True):
        likeness = np.corrcoef(block_means(small).ravel(), block_means(large).ravel())[0, 1]
        assert likeness > 0.97  # two encodings of the same images


def block_means(image: np.ndarray) -> np.ndarray:
    """(8, 8, 3): coarse enough for video that stores colour at half the resolution."""
    side = image.shape[0] // 8
    return image.reshape(8, side, 8, side, 3).mean((1, 3))


def test_the_whole_photograph_is_asked_for_by_name_also_of_the_demo(run, place, driving, small_weights, monkeypatch):
    photograph = place / "wide.png"
    Image.effect_noise((120, 80), 60).convert("RGB").save(photograph)
    wide = ("--weights", small_weights, "--output-frame", "portrait")
    assert run("animate", photograph, driving, "--framing", "center", "-o", "wide.mp4", *wide).code == 0
    assert read_video(place / "wide.mp4").images.shape[1:] == (80, 120, 3)
    square = place / "square.png"
    Image.effect_noise((80, 80), 60).convert("RGB").save(square)
    monkeypatch.setattr(command, "demo_files", lambda synthetic=False: (square, driving))
    assert run("animate", "--demo", *wide).code == 0
    assert read_video(place / "personalive-demo" / "demo.mp4").images.shape[1:] == (80, 80, 3)
    for other in (("--side-by-side",), ("--size", 64)):
        refused = run("animate", photograph, driving, *wide, *other)
        assert refused.code == 1
        assert refused.err.startswith("error: output frame portrait")
        assert len(refused.err.splitlines()) == 1


def test_a_clip_that_is_cut_off_plays_as_far_as_it_goes(run, place, portrait, small_weights):
    whole = write_noise(place / "whole.mp4", 20, fps=5, container={"movflags": "faststart"}).read_bytes()
    (place / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    done = run("animate", portrait, "cut.mp4", "--weights", small_weights, "--framing", "center")
    assert (done.code, done.err) == (0, "")
    assert any(line.startswith("warning") and "cut.mp4" in line for line in done.out.splitlines())
    assert 8 <= len(read_video(place / "cut_by_me.mp4").images) < 16


def test_the_demo_shows_all_three_and_says_where(run, place, portrait, small_weights, monkeypatch):
    clip = write_noise(place / "clip.mp4", 8)
    square = place / "square.png"
    with Image.open(portrait) as image:
        image.resize((80, 80)).save(square)
    monkeypatch.setattr(command, "demo_files", lambda synthetic=False: (square, clip))
    done = run("animate", "--demo", "--weights", small_weights)
    video, sheet = (place / "personalive-demo" / name for name in ("demo.mp4", "contact_sheet.png"))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"next  watch {video} and look at {sheet}"
    assert read_video(video).images.shape[1:] == (SMALL_SIZE_PX, 3 * SMALL_SIZE_PX, 3)
    assert sheet.is_file()


def test_the_demo_takes_the_bundled_model_and_no_folder_stays_when_it_fails(run, place, portrait, monkeypatch):
    asked = {}

    def fail(*files, **_):
        model, options = files[4], files[3]
        asked.update(model.engine_options(), weights=model.weights)
        asked.update(framing=options["framing"], fallback=options["center_fallback"])
        raise command.InputError("no video today: try tomorrow")

    monkeypatch.setattr(command, "demo_files", lambda synthetic=False: (portrait, portrait))
    monkeypatch.setattr(command, "_make", fail)
    assert run("animate", "--demo", "-o", "some/where").code == 1
    engine = {
        "weights": "photo",
        "device": "auto",
        "dtype": "auto",
        "vram": "auto",
        "backend": "auto",
        "decoder": None,
    }
    assert asked == {**engine, "framing": "auto", "fallback": False}
    assert not (place / "some/where").exists()


def test_the_demo_of_a_model_of_synthetic_heads_shows_synthetic_heads(run, small_weights, monkeypatch):
    asked = []

    def fail(*files, **_):
        asked.append((files[0].name, files[1].parent.parts[-2:], files[3]["framing"], files[3]["center_fallback"]))
        raise command.InputError("no video today: try tomorrow")

    monkeypatch.setattr(command, "_make", fail)
    for weights in ("tiny", str(small_weights), "photo"):
        run("animate", "--demo", "--weights", weights)
    drawn = ("portrait.png", ("assets", "demo"), "none", True)
    assert asked == [drawn, drawn, ("portrait-4.jpg", ("photo", "demo"), "auto", False)]


@pytest.mark.parametrize(
    ("arguments", "environment", "fallback"),
    [
        (["--weights", "tiny"], None, True),
        ([], "tiny", True),
        ([], None, False),
        (["--weights", "somewhere"], "tiny", False),
    ],
)
def test_the_centre_is_a_fallback_for_the_bundled_model_alone(run, monkeypatch, arguments, environment, fallback):
    asked = []

    def record(*files):
        asked.append(files[3]["center_fallback"])
        raise command.InputError("stop here")

    monkeypatch.setattr(command, "_make", record)
    if environment:
        monkeypatch.setenv("PERSONALIVE_WEIGHTS", environment)
    run("animate", "a.png", "b.mp4", *arguments)
    assert asked == [fallback]


def test_choices_are_those_of_the_library():
    assert [choice.value for choice in command.Framing] == list(get_args(FramingMode))
    assert [choice.value for choice in command.NoFace] == list(get_args(NoFace))
    assert [choice.value for choice in command.OutputFrame] == list(get_args(OutputFrame))
    assert [choice.value for choice in command.Pose] == ["auto", *get_args(PoseMode)]
    assert [choice.value for choice in Dtype] == ["auto", *DTYPES]
    assert [choice.value for choice in Backend] == ["auto", *BACKENDS]
    assert command.Pose.ABSOLUTE.value == Controls().pose


@pytest.mark.parametrize(
    ("wanted", "threshold", "options"),
    [
        (True, None, {}),
        (True, 3.5, {"keyframe_threshold": 3.5}),
        (False, None, {"keyframe_threshold": float("inf")}),
    ],
)
def test_keyframe_flags_become_one_threshold(wanted, threshold, options):
    found = command.VideoOptions(keyframes=wanted, keyframe_threshold=threshold).to_dict()
    assert {name: value for name, value in found.items() if name == "keyframe_threshold"} == options
    assert KeyframeConfig.threshold < float("inf")


def test_progress_without_a_terminal_is_plain_lines(run, portrait, driving, small_weights, monkeypatch):
    monkeypatch.setattr(CliConfig, "plain_interval_s", 0.0)
    done = run("animate", portrait, driving, "--weights", small_weights, "--framing", "center")
    assert done.code == 0
    lines = done.err.splitlines()
    loading = [line for line in lines if line.startswith("animating: loading ")]
    assert loading == lines[: len(loading)]
    assert "of 2 MB" in loading[0]
    assert not loading[0].endswith(" left")  # before a rate is known
    assert loading[-1].endswith(" 0:00 left")
    assert [line.split(" frames")[0] for line in lines[len(loading) :]] == [
        "animating: 4 of 10",
        "animating: 8 of 10",
        "animating: 10 of 10",
    ]
    assert all("per second" in line for line in lines[len(loading) :])
    assert all(line.isprintable() for line in lines)


def test_progress_on_a_terminal_is_a_bar_that_goes_away(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with console.progress("animating") as display:
        display.show(Progress(30, 120, 8.1, note="[red]"))
    shown = capsys.readouterr().err
    assert "30 of 120 frames, [red], 8.1 per second, 0:11 left" in shown
    assert "\x1b[2K" in shown.rpartition("left")[2]  # the line is wiped at the end


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_time_left_reads_like_a_clock(seconds, text):
    assert console.clock(seconds) == text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(120, 500, 8.1), "120 of 500 frames, 8.1 per second, 0:47 left"),
        (Progress(120, None, 8.1), "120 frames, 8.1 per second"),
        (Progress(120, 100, 8.1), "120 frames, 8.1 per second"),  # headers of videos miscount
        (Progress(0, 100), "0 of 100 frames"),
        (Progress(2e6, 5e6, 1e6, "bytes", "loading"), "loading 2 MB of 5 MB, 1 MB per second, 0:03 left"),
        (Progress(0.3, 1.0, unit="", label="checking"), "checking 30%"),
        (Progress(12, 40, 1.523, "steps", note="loss 0.03"), "12 of 40 steps, loss 0.03, 1.52 per second, 0:18 left"),
    ],
)
def test_progress_as_text(progress, text):
    assert console.describe(progress) == text
