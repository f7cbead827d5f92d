"""``personalive train`` as people meet it: the printed config, a chain of stages, resume, and bad inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from personalive.checkpoints.folder import CheckpointFolder
from personalive.runtime.load import load_engine
from personalive.training import run as module
from personalive.training.overrides import from_json, resolve
from personalive.training.presets import PAPER_STAGES, STAGES
from personalive.training.run import TrainReport
from support.toy_run import QUIET
from support.toy_set import ToySet

REPORT = TrainReport(Path("somewhere/weights"), 1, 1)
FAST = [part for value in QUIET for part in ("--set", value)] + ["--preset", "tiny", "--device", "cpu"]


@pytest.fixture
def toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """``synthetic`` without the minute that compiling the renderer takes."""
    monkeypatch.setattr(module, "SyntheticSet", lambda size_px, **more: ToySet(size_px))


def train(run, small_weights: Path, *more: str, stage: str = "motion", folder: str = "run"):
    return run("train", stage, "synthetic", "--run", folder, "--weights", small_weights, *FAST, *more)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("stage", PAPER_STAGES)
def test_a_dry_run_prints_the_config_and_does_nothing(run, place: Path, stage: str):
    done = run("train", stage, "nowhere", "--preset", "tiny", "--set", "optimiser.lr=3e-4", "--dry-run")
    assert done.code == 0
    assert from_json(done.out, "stdout") == resolve(stage, "tiny", pairs=["optimiser.lr=3e-4"])
    assert list(place.iterdir()) == []


def test_three_stages_give_a_model_that_runs_and_the_same_command_resumes(run, place, small_weights, toy_data):
    weights = small_weights
    for stage in ("motion", "distill", "stream"):
        done = train(run, weights, "--set", "steps=1", stage=stage, folder=stage)
        assert done.code == 0, done.err
        weights = place / stage / "weights"
        assert f"--weights {weights.relative_to(place)}" in done.out
    assert resolve("stream", "tiny", place / "stream" / "config.json").steps == 1
    engine = load_engine(weights, device="cpu", dtype="float32")
    assert engine.config == CheckpointFolder.open(small_weights).config
    before = contents(weights)
    again = train(run, place / "distill" / "weights", "--set", "steps=1", stage="stream", folder="stream")
    assert "1 (0 now)" in again.out
    assert contents(weights) == before
    longer = train(run, place / "distill" / "weights", "--set", "steps=2", stage="stream", folder="stream")
    assert "2 (1 now)" in longer.out
    changed = {name for name, value in contents(weights).items() if before[name] != value}
    assert changed == {"personalive/temporal_module.safetensors"}


def test_a_run_is_not_continued_otherwise(run, place, small_weights, toy_data, tmp_path):
    assert train(run, small_weights, "--set", "steps=1").code == 0
    before = contents(place)
    rate = train(run, small_weights, "--set", "optimiser.lr=1")
    assert rate.error_lines == [
        "error: run: this run began with optimiser.lr 5e-05, not 1.0: repeat its own command, or give another --run"
    ]
    other = run("train", "distill", "synthetic", "--run", "run", "--weights", small_weights, *FAST)
    assert "began with stage 'motion', not 'distill'" in other.error_lines[0]
    moved = train(run, place / "run" / "weights", "--set", "steps=1")
    assert "began with weights" in moved.error_lines[0]
    assert {rate.code, other.code, moved.code} == {1}
    assert contents(place) == before


@pytest.mark.parametrize(
    ("arguments", "names", "code"),
    [
        (["--set", "optimiser.rate=1"], "unknown key 'optimiser.rate': did you mean", 1),
        (["--set", "steps=soon"], "--set: steps 'soon' should be a valid integer", 1),
        (["--config", "gone.json"], "gone.json: cannot be read", 1),
        (["--preset", "huge"], "preset 'huge' is not known: use full, tiny", 1),
        (["--weights", "gone"], "gone: no such weights folder", 1),
        (["--device", "abacus"], "device 'abacus' is not available", 1),
        (["--set", "optimiser.kind=adamw8bit"], "pip install bitsandbytes", 1),
        (["--set", "loss.domain=pixels", "--set", "loss.lpips=gone"], "gone: no vgg16", 1),
    ],
)
def test_bad_options_end_in_one_line(run, place, small_weights, toy_data, arguments, names: str, code: int):
    done = train(run, small_weights, *arguments, stage="distill")
    assert done.code == code
    assert len(done.error_lines) == 1
    assert names in done.error_lines[0]


@pytest.mark.parametrize("content", ["missing", "empty", "file"])
def test_data_that_cannot_be_used_ends_in_one_line(run, place, small_weights, content: str):
    data = place / "data"
    if content == "empty":
        data.mkdir()
    if content == "file":
        data.write_text("x")
    done = run("train", "motion", data, "--run", "run", "--weights", small_weights, *FAST)
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert "personalive data prepare" in done.error_lines[0]
    assert not (place / "run").exists()


def test_a_folder_of_something_else_is_left_alone(run, place, small_weights, toy_data):
    (place / "run").mkdir()
    (place / "run" / "thesis.txt").write_text("mine")
    done = train(run, small_weights)
    assert done.error_lines == ["error: run: holds other files and no training run: give another --run"]
    assert contents(place / "run") == {"thesis.txt": b"mine"}


def test_without_a_run_folder_it_is_asked_for(run, small_weights):
    done = run("train", "motion", "synthetic", "--weights", small_weights, *FAST)
    assert done.code == 2
    assert "--run DIR" in done.error_lines[0]


def test_a_loss_that_is_not_a_number_is_one_line(run, place, small_weights, toy_data):
    done = train(run, small_weights, "--set", "optimiser.lr=1e30", "--set", "steps=9")
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert "not a number in step" in done.error_lines[0]
    assert not (place / "run" / "weights").exists()


def test_data_of_another_size_says_both(run, small_weights, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SyntheticSet", lambda size_px, **more: ToySet(32))
    done = train(run, small_weights)
    assert "(32, 32, 3)" in done.error_lines[0]
    assert "64 x 64" in done.error_lines[0]


def test_a_preset_names_its_own_weights_and_data(run, place, small_weights, toy_data, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "train", lambda config, **options: seen.append((config.stage, options)) or REPORT)
    assert run("train", "motion", "--run", "one", "--preset", "tiny").code == 0
    assert run("train", "all", "--run", "all", "--preset", "tiny").code == 0
    starts = [(stage, options["data"], options["weights"], str(options["run"])) for stage, options in seen]
    assert starts[0] == ("motion", "synthetic", "tiny", "one")
    assert starts[1] == ("autoencoder", "synthetic", "scratch", "all/1-autoencoder")
    assert [start[0] for start in starts[1:]] == list(STAGES)
    assert {start[2] for start in starts[2:]} == {str(REPORT.weights)}
    refused = run("train", "motion", "--run", "two")
    assert refused.code == 2
    assert "give DATA" in refused.error_lines[0]


def test_configs_of_a_run_are_json(run, place, small_weights, toy_data):
    assert train(run, small_weights, "--set", "steps=1").code == 0
    origin = json.loads((place / "run" / "origin.json").read_text())
    assert origin["data"] == "synthetic"
    assert origin["weights_identity"] == CheckpointFolder.open(small_weights).identity()
