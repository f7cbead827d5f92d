"""Runs that cannot begin or go on say so in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from personalive.training import run as module
from personalive.training.__main__ import main
from personalive.training.loop import World


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line of an error that ends a run."""
    assert main([str(argument) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_run_folder_that_is_a_file(tmp_path: Path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert "notes.txt" in told(capsys, "vae", "--run", file)
    assert file.read_text() == "mine"


def test_an_unknown_device(tmp_path: Path, capsys):
    assert "abacus" in told(capsys, "vae", "--run", tmp_path / "run", "--device", "abacus")
    assert not (tmp_path / "run").exists()


def test_an_empty_run_folder_names_the_stage_to_run(tmp_path: Path, capsys):
    assert "render" in told(capsys, "vae", "--run", tmp_path)
    assert "vae.safetensors" in told(capsys, "latents", "--run", tmp_path)


def test_steps_that_cannot_be_shared_say_so(tmp_path: Path, toy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "join_world", lambda: World(rank=0, size=2))
    assert "vae is not shared" in toy.error(tmp_path / "run", "vae")


@pytest.mark.parametrize(
    "bad", [("--steps", "0"), ("--steps", "many"), ("--minutes", "0"), ("--minutes", "nan"), ("--groups", "-1")]
)
def test_numbers_that_mean_nothing_are_refused(tmp_path: Path, capsys, bad: tuple[str, str]):
    with pytest.raises(SystemExit) as left:
        main(["render", "--run", str(tmp_path / "run"), *bad])
    assert left.value.code == 2
    assert bad[0] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("gone", "stage", "named"),
    [
        ("cache/poses.npz", "tokens", "cache"),
        ("cache/latents.f16", "motion", "cache"),
        ("cache/tokens.npy", "motion", "tokens"),
        ("data/images.u8", "extractor", "render"),
        ("cache/moved.f16", "motion", "moved"),
        ("cache/flow.f16", "motion", "moved"),
        ("motion_encoder.safetensors", "motion", "motion_encoder.safetensors"),
    ],
)
def test_a_missing_file_names_the_stage_that_makes_it(
    finished, toy, tmp_path: Path, gone: str, stage: str, named: str
):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("tiny-*"))
    (folder / gone).unlink()
    assert named in toy.error(folder, stage)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_a_damaged_file_says_to_train_that_stage_again(finished, toy, tmp_path: Path, content: bytes):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("tiny-*", "cache"))
    (folder / "vae.safetensors").write_bytes(content)
    line = toy.error(folder, "latents")
    assert "vae.safetensors" in line
    assert "train" in line


def test_weights_of_another_preset_say_so(finished, tmp_path: Path, capsys):
    shutil.copy(finished.folder / "vae.safetensors", tmp_path)
    shutil.copytree(finished.folder / "data", tmp_path / "data")
    assert "another preset" in told(capsys, "decoder", "--run", tmp_path)
