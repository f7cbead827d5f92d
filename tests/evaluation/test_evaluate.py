"""Whole evaluations with a small model, and the reports of them."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from personalive.errors import InputError, OutputError
from personalive.evaluation import report as report_module
from personalive.evaluation import runner
from personalive.evaluation.datasets import DatasetOptions, Sample, open_dataset
from personalive.evaluation.methods import COPY, OURS, TRUTH, reenact
from personalive.evaluation.metrics.accumulators import (
    ClipFeatures,
    FaceFollowing,
    FaceParameters,
    IdentitySimilarity,
    Perceptual,
    Stability,
)
from personalive.evaluation.metrics.catalog import FACES, METRICS
from personalive.evaluation.metrics.functional import l1, psnr, ssim
from personalive.evaluation.metrics.pretrained import PretrainedNetworks
from personalive.evaluation.report import HTML, JSON, MARKDOWN, check_report_folder, write_report
from personalive.evaluation.results import EvaluateOptions, Evaluation
from personalive.evaluation.runner import evaluate
from personalive.runtime.face import load_face_reader
from personalive.vision.face_landmarks import FaceReader
from support.clips import read_video

FRAMES = 28  # the fewest that show a motion-to-photon latency
ONE = "synthetic:6-6"  # somebody who speaks and blinks at once


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    (case,) = open_dataset(ONE, DatasetOptions(size_px=64, frames=FRAMES), None).cases("self")
    return np.stack([sample.truth for sample in case.samples() if sample.truth is not None])


@pytest.fixture(scope="module")
def found(small_engine, place: Path, truth: np.ndarray, write_video) -> Evaluation:
    """One synthetic head, self and cross, beside videos of a perfect method that lacks the cross video."""
    videos = place / "videos"
    videos.mkdir()
    write_video(videos / "person006.mp4", truth)
    options = EvaluateOptions(
        dataset=ONE,
        frames=FRAMES,
        framing="none",
        methods=(("perfect <b>", str(videos)),),
        metrics_folder=str(place / "none"),
    )
    seen = []
    evaluation = evaluate(options, small_engine, progress=seen.append)
    assert (seen[-1].frames, seen[-1].total) == (7 * FRAMES, 7 * FRAMES)
    return evaluation


def metrics(evaluation: Evaluation, kind: str, method: str) -> dict[str, float]:
    (row,) = [row for row in evaluation.rows if (row.kind, row.method) == (kind, method)]
    return row.metrics


def test_rows_are_our_engine_the_method_and_the_baselines(found):
    assert [(row.kind, row.method) for row in found.rows] == [
        ("self", OURS),
        ("self", "perfect <b>"),
        ("self", COPY),
        ("self", TRUTH),
        ("cross", OURS),
        ("cross", COPY),
        ("cross", TRUTH),
    ]
    assert found.skipped == ["perfect <b>: has no video named driver006_by_person006"]
    assert all(case.frames == FRAMES for row in found.rows for case in row.cases)


def test_our_figures_are_those_of_the_stream_s_images(found, small_engine):
    for kind in ("self", "cross"):
        (case,) = open_dataset(ONE, DatasetOptions(size_px=64, frames=FRAMES), None).cases(kind)
        pairs = [(o, m.truth) for m, o in reenact(small_engine, case.portrait(), case.samples())]
        for name, measure in (("l1", l1), ("psnr", psnr), ("ssim", ssim)):
            assert metrics(found, kind, OURS)[name] == pytest.approx(np.mean([measure(*pair) for pair in pairs]))


def test_baselines_bound_the_scores(found):
    true = metrics(found, "self", TRUTH)
    assert (true["l1"], true["ssim"]) == (0, pytest.approx(1))
    assert true["psnr"] == float("inf")
    assert metrics(found, "cross", TRUTH) == true  # the same images
    assert min(true[name] for name in ("mouth", "blink", "gaze_x")) > 0.5
    perfect, copied = metrics(found, "self", "perfect <b>"), metrics(found, "self", COPY)
    assert perfect["l1"] < 0.01 < metrics(found, "self", OURS)["l1"]
    assert perfect["mouth"] == pytest.approx(true["mouth"], abs=0.3)
    assert copied["flicker"] == 0
    assert "mouth" not in copied
    assert "fps" not in perfect
    assert {"fps", "chunk_ms", "photon_ms"} <= set(metrics(found, "self", OURS))


def test_figures_that_could_not_be_made_say_why(found):
    assert found.missing["lpips"].startswith("needs vgg16-397923af.pth")
    assert found.missing["drift"] == "needs videos of 200 frames or more"
    assert set(found.missing) == {"lpips", "tlp", "id_sim", "aed", "apd", "fvd", "drift", "drift_colour", *FACES}
    assert not set(found.missing) & {name for row in found.rows for name in row.metrics}


# --- folders of videos --------------------------------------------------------------------------------------------


def test_an_unreadable_video_is_reported_and_the_others_are_scored(small_engine, tmp_path, write_video, moving):
    write_video(tmp_path / "a.mp4", moving(5, 1))
    write_video(tmp_path / "c.mp4", moving(5, 2))
    (tmp_path / "b.mp4").write_bytes(b"no video")
    options = EvaluateOptions(dataset=str(tmp_path), framing="none", metrics_folder=str(tmp_path / "none"))
    done = evaluate(options, small_engine)
    assert [(row.kind, row.method) for row in done.rows] == [
        ("self", OURS),
        ("self", COPY),
        ("self", TRUTH),
        ("cross", OURS),
    ]
    assert [case.case for case in done.rows[0].cases] == ["a", "c"]
    assert [case.case for case in done.rows[-1].cases] == ["c_by_a", "a_by_c"]
    (line,) = done.skipped
    assert line.startswith(f"{tmp_path / 'b.mp4'}: is not a video")
    assert math.isfinite(metrics(done, "self", COPY)["psnr"])  # although the first frame is the portrait itself
    assert done.missing["fps"] == "needs videos of 28 frames or more"
    assert done.missing["mouth"] == "needs synthetic heads"


def test_nothing_readable_is_one_clear_error(small_engine, tmp_path):
    (tmp_path / "b.mp4").write_bytes(b"no video")
    options = EvaluateOptions(dataset=str(tmp_path), kinds=("self",), framing="none")
    with pytest.raises(
        InputError, match=r"not one video in it can be read; the first reason: .*b\.mp4: is not a video"
    ):
        evaluate(options, small_engine)


def test_a_video_that_shows_no_face_is_named_and_the_run_goes_on(small_engine, tmp_path, write_video, moving):
    """With framing "auto" and nothing to fall back on; here no video shows one, so the run ends with the reason."""
    write_video(tmp_path / "a.mp4", moving(5, 1))
    options = EvaluateOptions(dataset=str(tmp_path), kinds=("self",))
    with pytest.raises(
        InputError, match=r"not one case could be evaluated; the first reason: a \(self, ours\): .*no face"
    ):
        evaluate(options, small_engine)
    noted = evaluate(EvaluateOptions(dataset=str(tmp_path), kinds=("self",), center_fallback=True), small_engine)
    assert noted.notes == [f"{tmp_path / 'a.mp4'}: no face found: the largest centred square is used"]


def test_videos_alone_are_scored_without_a_model(tmp_path, write_video, moving):
    clips, videos = tmp_path / "clips", tmp_path / "videos"
    for folder, seeds in ((clips, (1, 2)), (videos, (1, 1))):
        folder.mkdir()
        for name, seed in zip("ab", seeds, strict=True):
            write_video(folder / f"{name}.mp4", moving(6, seed))
    options = EvaluateOptions(
        dataset=str(clips), kinds=("self",), framing="none", size_px=64, methods=(("theirs", str(videos)),)
    )
    done = evaluate(options, None)
    right, wrong = (case.metrics["l1"] for case in done.rows[0].cases)
    assert right < 0.01 < wrong
    assert done.rows[0].metrics["l1"] == pytest.approx((right + wrong) / 2)
    assert done.missing["fps"] == "needs a model (--weights)"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kinds": ()}, "leave --no-self or --no-cross out"),
        ({"people": 0}, "people 0"),
        ({"frames": -1}, "frames -1"),
        ({"seed": -1}, "seed -1"),
        ({"methods": (("ours", "x"),)}, "'ours' is taken"),
        ({"methods": (("a", "x"), ("a", "y"))}, "'a' is taken"),
    ],
)
def test_options_without_sense_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        EvaluateOptions(**options)


def test_runs_without_sense_are_refused(small_engine, tmp_path):
    with pytest.raises(InputError, match="nothing to score"):
        evaluate(EvaluateOptions(), None)
    with pytest.raises(InputError, match="leave --size out"):
        evaluate(EvaluateOptions(size_px=128), small_engine)
    with pytest.raises(InputError, match=r"no video of theirs has the name of a case: name them like person000\.mp4"):
        evaluate(EvaluateOptions(methods=(("theirs", str(tmp_path)),), dataset="synthetic:1"), small_engine)


# --- measures with networks, and long runs --------------------------------------------------------------------------


class ColourNetwork:
    """Stands in for pretrained networks: everything is the mean colour."""

    def embed(self, image: np.ndarray) -> np.ndarray | None:
        return None if image.max() == 0 else image.mean(axis=(0, 1))

    def read(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return image.mean(axis=(0, 1)), image.max(axis=(0, 1))

    def describe(self, clip: list[np.ndarray]) -> np.ndarray:
        assert len(clip) == 16
        return np.stack(clip).mean(axis=(0, 1, 2))


def test_networks_measures_reach_the_table(small_engine, monkeypatch, tmp_path):
    tools = PretrainedNetworks(faces=ColourNetwork(), smirk=ColourNetwork(), i3d=ColourNetwork())  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(runner, "load_pretrained", lambda *_: tools)
    options = EvaluateOptions(dataset="synthetic:1", frames=32, kinds=("cross",), framing="none")
    done = evaluate(options, small_engine)
    ours, true = metrics(done, "cross", OURS), metrics(done, "cross", TRUTH)
    assert {"id_sim", "aed", "apd", "fvd"} <= set(ours)
    assert true["fvd"] == pytest.approx(0, abs=1e-6)
    assert true["id_sim"] > ours["id_sim"]
    assert ours["fvd"] > 0


def test_frames_without_a_face_do_not_count_for_identity():
    red, black = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    likeness = IdentitySimilarity(ColourNetwork(), red)  # pyright: ignore[reportArgumentType]
    for output in (red, black, red):
        likeness.update(Sample(red), output)
    assert likeness.compute() == {"id_sim": pytest.approx(1)}
    assert IdentitySimilarity(ColourNetwork(), black).compute() == {}  # pyright: ignore[reportArgumentType]
    parameters = FaceParameters(ColourNetwork())  # pyright: ignore[reportArgumentType]
    parameters.update(Sample(red), black)
    assert parameters.compute() == {"aed": pytest.approx(200 / 3), "apd": pytest.approx(200 / 3)}


# --- faces of people, read by the bundled networks --------------------------------------------------------------


@pytest.fixture(scope="module")
def performer() -> list[np.ndarray]:
    """A generated person who turns, speaks and blinks: every fourth frame of 4 s, at 256 px."""
    path = resources.files("personalive") / "assets" / "photo" / "demo" / "driving.mp4"
    frames = read_video(Path(str(path))).images[:100:4]
    return [cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA) for image in frames]


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return load_face_reader()


def followed(reader: FaceReader, driver: list[np.ndarray], made: list[np.ndarray]) -> dict[str, float]:
    metric = FaceFollowing(reader)
    for one, other in zip(driver, made, strict=True):
        metric.update(Sample(one), other)
    return metric.compute()


def test_a_face_follows_itself_exactly_and_a_still_one_does_not(reader, performer):
    same = followed(reader, performer, performer)
    assert (same["expression_error"], same["pose_error_deg"]) == (0, 0)
    assert [same[name] for name in ("jaw_follows", "blink_follows", "yaw_follows")] == pytest.approx([1, 1, 1])
    still = followed(reader, performer, [performer[0]] * len(performer))
    assert still["expression_error"] > 0.02
    assert still["pose_error_deg"] > 1.5
    assert max(abs(still[name]) for name in ("jaw_follows", "blink_follows", "yaw_follows")) < 0.3


def test_a_mirrored_head_turns_the_other_way_and_a_late_one_follows_less(reader, performer):
    mirrored = followed(reader, performer, [np.ascontiguousarray(image[:, ::-1]) for image in performer])
    assert mirrored["yaw_follows"] < -0.9
    late = followed(reader, performer[2:], performer[:-2])
    assert late["jaw_follows"] < 0.8
    assert late["yaw_follows"] > 0.5


def test_frames_without_a_face_do_not_count_and_what_does_not_move_is_not_followed(reader, performer):
    grey = np.full((256, 256, 3), 128, np.uint8)
    assert followed(reader, performer[:3], [grey] * 3) == {}
    still = followed(reader, [performer[0]] * 3, [performer[0], grey, performer[0]])
    assert set(still) == {"expression_error", "pose_error_deg"}


def test_no_clip_runs_from_one_case_into_the_next():
    network, image = ColourNetwork(), np.zeros((4, 4, 3), np.uint8)
    for frames, whole in ((20, 1), (15, 0), (32, 2)):
        clips = ClipFeatures(network)  # pyright: ignore[reportArgumentType]
        for _ in range(frames):
            clips.update(Sample(image), image)
        assert (len(clips.made), len(clips.true)) == (whole, whole)


def test_lpips_is_to_the_truth_and_tlp_to_the_driver_where_there_is_none(moving):
    import torch

    class Mean(torch.nn.Module):
        """Distance of mean levels in 0..1; has a parameter, as every network."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def describe(self, image: torch.Tensor) -> list[torch.Tensor]:
            return [image.mean().reshape(1) / 2]

        def distance(self, one: list[torch.Tensor], other: list[torch.Tensor]) -> torch.Tensor:
            return (one[0] - other[0]).abs()

    def flat(level: int) -> np.ndarray:
        return np.full((8, 8, 3), level, np.uint8)

    with_truth = Perceptual(Mean())  # pyright: ignore[reportArgumentType]
    for made, true in ((0, 51), (51, 51), (51, 153)):
        with_truth.update(Sample(flat(255), flat(true)), flat(made))
    assert with_truth.compute() == {
        "lpips": pytest.approx((0.2 + 0 + 0.4) / 3),
        "tlp": pytest.approx(1000 * (0.2 + 0.4) / 2),
    }
    without = Perceptual(Mean())  # pyright: ignore[reportArgumentType]
    for made, driver in ((0, 0), (51, 51), (51, 51)):
        without.update(Sample(flat(driver)), flat(made))
    assert without.compute() == {"tlp": pytest.approx(0)}


def test_drift_shows_in_long_runs():
    truth = np.zeros((4, 4, 3), np.uint8)
    measure = Stability(truth)
    for index in range(250):
        measure.update(Sample(truth, truth), np.full((4, 4, 3), 51 if index >= 150 else 0, np.uint8))
    assert measure.compute()["drift"] == pytest.approx(0.2)
    assert measure.compute()["drift_colour"] == pytest.approx(0.2)


# --- the report ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(found, place) -> Path:
    files = write_report(found, place / "report")
    assert [path.name for path in files] == [JSON, MARKDOWN, HTML]
    assert {path.name for path in place.iterdir()} == {"videos", "report"}
    return place / "report"


def test_json_holds_exact_values_options_versions_and_reasons(written, found):
    record = json.loads((written / JSON).read_text(encoding="utf-8"))
    assert record["results"][0]["metrics"]["l1"] == metrics(found, "self", OURS)["l1"]
    assert record["results"][3]["metrics"]["psnr"] == "inf"
    assert record["options"]["dataset"] == ONE
    assert record["options"]["size_px"] == 64
    assert record["options"]["constants"]["first_seed"] == 10_000_000
    assert record["model"]["weights"] == "small"
    assert record["versions"]["torch"]
    assert record["missing"]["fvd"].startswith("needs i3d.onnx")
    assert "Other data" in record["published"]["note"]
    assert record["published"]["cross"]["PersonaLive"]["fvd"] == 520.6


def test_markdown_has_a_table_per_kind_and_the_papers_beside_it(written):
    text = (written / MARKDOWN).read_text(encoding="utf-8")
    assert text.index("## Self-reenactment") < text.index("## Cross-reenactment") < text.index("## Speed")
    assert text.count("| PersonaLive | ") == 2
    assert text.count("Other data and other hardware") == 2
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count(" | ") for line in block.strip().splitlines()}) == 1
    assert "| ground truth | 1 | 0.0000 | ∞ | 1.000 |" in text
    assert "needs vgg16-397923af.pth" in text


def test_the_page_needs_nothing_else_and_shows_every_contender(written, truth):
    page = (written / HTML).read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "prefers-color-scheme: dark" in page
    assert "perfect &lt;b&gt;" in page
    assert "<b>" not in page
    perfect = next(line for line in page.splitlines() if line.startswith("<tr><td>perfect"))
    ours = next(line for line in page.splitlines() if line.startswith("<tr><td>ours"))
    assert 'class="best">0.00' in perfect  # its L1; the baselines do not compete
    assert 'class="best">0.' not in ours.partition("</td><td>")[2][:60]
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    ]
    # self: portrait, driver, ours, perfect; cross: portrait, driver, ours, truth
    assert [image.shape for image in images] == [
        shape for _ in range(2) for shape in [(128, 128, 3), *[(128, 8 * 128, 3)] * 3]
    ]
    driver, perfect = images[1], images[3]
    assert np.abs(driver.astype(int) - perfect).mean() < 4
    enlarged = np.asarray(Image.fromarray(truth[0]).resize((128, 128), Image.Resampling.BICUBIC))
    assert np.abs(driver[:, :128].astype(int) - enlarged).mean() < 8


def test_a_report_is_replaced_only_when_told_and_nothing_else_ever(found, tmp_path):
    folder = tmp_path / "report"
    write_report(found, folder)
    with pytest.raises(OutputError, match="use --overwrite"):
        check_report_folder(folder, overwrite=False)
    write_report(found, folder, overwrite=True)
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="holds other things than a report"):
        write_report(found, folder, overwrite=True)
    assert (folder / "mine.txt").read_text() == "keep"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_full_disk_leaves_the_old_report_and_no_piece_of_the_new(found, tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write_report(found, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_text = Path.write_text

    def full(path: Path, *arguments, **named):
        if path.name == HTML:
            raise OSError(28, "No space left on device")
        return write_text(path, *arguments, **named)

    monkeypatch.setattr(report_module.Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_report(found, folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_every_figure_explains_itself():
    assert all(metric.about and metric.label for metric in METRICS.values())
