"""``personalive doctor``: findings, the next step, and the exit code."""

from __future__ import annotations

import pytest

from personalive import __version__
from personalive.cli import doctor
from personalive.cli.doctor import State, advise
from personalive.errors import CheckpointError
from personalive.runtime.load import load_engine, load_engine_at_once

RUNS = {"torch", "device", "face detector", "video encoder"}


def test_weights_that_are_found_are_what_runs(run, small_weights, monkeypatch):
    monkeypatch.setenv("PERSONALIVE_WEIGHTS", str(small_weights))
    done = run("doctor")
    assert (done.code, done.err) == (0, "")
    assert f"released weights  ok       {small_weights}" in done.out
    assert "video encoder     ok       H.264" in done.out
    assert "Haar cascades" in done.out
    assert "your photo:   personalive animate PORTRAIT DRIVING" in done.out


def test_without_weights_the_way_to_them_is_shown(run):
    done = run("doctor")
    assert "released weights  missing" in done.out
    assert "a step up:    personalive weights download" in done.out


@pytest.mark.parametrize(
    ("able", "runs", "says"),
    [
        (RUNS, False, "weights download"),
        (RUNS | {"bundled model"}, True, "weights download"),
        (RUNS | {"bundled model"}, True, "animate PORTRAIT DRIVING"),
        (RUNS | {"bundled model", "demo files"}, True, "animate --demo"),
        (RUNS | {"released weights"}, True, "animate PORTRAIT DRIVING"),
        ({"released weights", "bundled model", "demo files"}, False, "torch and device"),
        (RUNS - {"video encoder"} | {"released weights"}, False, "video encoder missing or broken"),
    ],
)
def test_advice_follows_from_what_is_there(able, runs, says):
    steps, can_run = advise(able)
    assert can_run is runs
    assert says in "\n".join(steps)


def test_probes_that_fail_are_findings_and_the_exit_code(run, monkeypatch):
    def broken():
        raise ImportError("libtorch.so:\nno such file")

    def absent():
        raise CheckpointError("nothing here: download it")

    monkeypatch.setattr(doctor, "_PROBES", {"torch": broken, "released weights": absent})
    done = run("doctor")
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines()[:2] == [
        "torch             missing  ImportError: libtorch.so: no such file",
        "released weights  missing  nothing here: download it",
    ]
    assert "nothing can run" in done.out


def test_a_terminal_gets_a_table_that_does_not_read_brackets_as_markup(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    doctor._show([doctor.Finding("demo files", State.missing, "[red]gone[/red] " + "far " * 20)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert "[red]gone[/red]" in lines[0]


def test_the_version(run):
    done = run("--version")
    assert (done.code, done.out) == (0, f"personalive {__version__}\n")


def test_a_torch_without_cuda_on_an_nvidia_machine_is_named_once(run, monkeypatch):
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("torch.version.hip", None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    done = run("doctor")
    lines = [line for line in done.out.splitlines() if "CUDA build" in line]
    assert (done.err, len(lines)) == ("", 1)
    assert lines[0].startswith("torch             note")
    assert "pip install" in lines[0]


@pytest.mark.parametrize("weights", ["photo", "tiny"])
def test_a_model_that_is_loaded_on_such_a_machine_says_so_once(monkeypatch, caplog, weights):
    """Videos and the live page load their model through these two."""
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("torch.version.hip", None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    for load in (load_engine, load_engine_at_once):
        caplog.clear()
        load(weights)
        said = [record.getMessage() for record in caplog.records if "CUDA build" in record.getMessage()]
        assert len(said) == 1
        assert "\n" not in said[0]
        caplog.clear()
        load(weights, device="cpu")
        assert caplog.records == []  # a choice of the user's


def test_tensorrt_where_it_could_run_is_named_as_never_run(run, monkeypatch):
    monkeypatch.setattr("personalive.runtime.registry.unavailable", lambda name, device, precision: None)
    assert "tensorrt was never run by this project" in run("doctor").out
