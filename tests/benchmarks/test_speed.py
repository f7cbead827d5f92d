"""The benchmark of whole calls: what it counts, what it writes, and how it ends when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import speed
from personalive.engine.engine import Engine
from personalive.evaluation.benchmark import Inputs, with_keyframes
from personalive.models.networks import Networks
from support.small_model import write_small_model
from timing.candidate import Candidate, Plan, Spec, agreement, set_up, stream, take_turns
from timing.inputs import Model
from timing.report import rows
from timing.stages import STAGES, Call, Marks, marked

CPU = torch.device("cpu")
PLAN = Plan(keyframes=(0, 3), rounds=2, warm_calls=1, stream_calls=5, repeats=1)
EAGER, BASELINE = Spec("eager", torch.float32), Spec("baseline", torch.float32)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("model") / "small"))


def run(small: str, output: Path, *options: str) -> dict[str, Any]:
    arguments = ["--weights", small, "--device", "cpu", "--dtype", "float32", "--quick", "--output", str(output)]
    assert speed.main([*arguments, *options]) == 0
    return json.loads(output.read_text())


# --- a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(small: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(small, tmp_path_factory.mktemp("run") / "new" / "out.json", "--backends", "eager,tensorrt")


def test_a_quick_run_times_every_candidate_with_every_number_of_keyframes(result):
    baseline, eager, missing = result["candidates"]
    assert [row["name"] for row in result["candidates"]] == ["baseline", "eager", "tensorrt"]
    for row in (baseline, eager):
        assert row["error"] is None
        assert row["by_turns"]
        assert row["finite"]
        assert set(row["calls"]) == {"0", "3"}
        assert row["first_frame_s"] > 0
        assert 0 < row["open_s"] <= row["setup_s"]
        assert row["peak_memory_bytes"] > 50e6  # torch alone is larger
    assert missing["error"].partition(": ")[2]
    assert missing["calls"] == {}
    assert not result["complete"]


def test_the_figures_of_a_call_hang_together(result):
    for row in result["candidates"][:2]:
        for summary in row["calls"].values():
            assert len(summary["samples_ms"]) == 2
            assert min(summary["samples_ms"]) <= summary["ms_median"] + 1e-3
            assert summary["ms_median"] <= summary["ms_p95"] <= max(summary["samples_ms"]) + 1e-3
            assert summary["frames_per_s"] == pytest.approx(4000 / summary["ms_median"])
            assert list(summary["stages_ms"]) == list(STAGES)
            assert 0.5 < sum(summary["stages_ms"].values()) / summary["ms_median"] <= 1.0 + 1e-9  # medians of two
            flops = summary["flops"]
            assert flops["call"] == sum(flops[stage] for stage in STAGES)
            achieved = 1e3 * flops["call"] / summary["ms_median"]
            assert summary["peak_share"] == pytest.approx(achieved / result["matrix_peak"]["float32"])


def test_keyframes_and_the_baseline_cost_operations(result):
    baseline, eager = ({n: row["calls"][n]["flops"] for n in ("0", "3")} for row in result["candidates"][:2])
    assert 0 < eager["0"]["denoiser"] < eager["3"]["denoiser"] < baseline["3"]["denoiser"]
    assert eager["0"]["denoiser"] < baseline["0"]["denoiser"]
    assert eager["0"]["decode"] == baseline["3"]["decode"]


def test_ratios_are_those_of_the_medians(result):
    baseline, eager = (row["calls"]["3"] for row in result["candidates"][:2])
    assert baseline["times_baseline"] == eager["times_eager"] == 1.0
    assert eager["times_baseline"] == pytest.approx(baseline["ms_median"] / eager["ms_median"])
    assert baseline["times_eager"] == pytest.approx(eager["ms_median"] / baseline["ms_median"])


def test_images_are_compared_with_float32(result):
    baseline, eager, _ = result["candidates"]
    assert eager["psnr_db"] is None  # equal
    assert eager["largest_difference_levels"] == 0
    assert baseline["largest_difference_levels"] <= 1


def test_the_run_says_what_it_ran_on(result):
    where = result["environment"]
    assert where["torch"] == torch.__version__
    assert where["threads"] == torch.get_num_threads()
    assert where["device"] == "cpu"
    assert where["device_name"]
    assert result["model"]["image_size_px"] == 64
    assert result["matrix_peak"]["float32"] > 1e8


@pytest.mark.full
def test_when_the_time_is_over_the_file_says_what_was_not_run(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(speed, "set_up", lambda candidate, *_: kept.append(vars(candidate)))
    found = run(small, tmp_path / "out.json", "--backends", "eager", "--limit-s", "0.001")
    assert kept == []
    assert all("not run" in row["error"] for row in found["candidates"])
    assert not found["complete"]
    assert "not run" in capsys.readouterr().out  # in the table too


@pytest.mark.full
def test_the_file_is_written_after_every_candidate(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output, seen = tmp_path / "out.json", []

    def look(candidate: Candidate, *_: object) -> None:
        seen.append([row["error"] for row in json.loads(output.read_text())["candidates"]])
        raise RuntimeError(f"no {candidate.spec.name}")

    monkeypatch.setattr(speed, "set_up", look)
    found = run(small, output, "--backends", "eager")
    assert seen == [[None, None], ["RuntimeError: no baseline", None]]
    assert [row["error"] for row in found["candidates"]] == ["RuntimeError: no baseline", "RuntimeError: no eager"]


# --- its parts ------------------------------------------------------------------------------------------------------


class Steps:
    """A meter that is one further at every look."""

    def __init__(self) -> None:
        self.looks = 0

    def read(self) -> int:
        """Number of looks at it."""
        self.looks += 1
        return self.looks

    def between(self, first: int, second: int) -> float:
        """Looks."""
        return second - first


def test_every_stage_ends_where_it_should_and_the_engine_is_left_as_it_was(networks: Networks, inputs: Inputs):
    engine = Engine(networks)
    state = stream(engine, inputs, len(inputs.windows)).state
    before = [set(vars(part)) for part in (engine, engine.backend, engine.conditioner)]
    marks = Marks(Steps())
    with marked(engine, marks):
        marks.begin()
        engine.step(state, inputs.windows[0])
    # the step lies on both sides of the denoiser
    assert marks.stages() == {"conditioning": 1, "denoiser": 1, "step": 2, "decode": 1, "copy_out": 1}
    assert before == [set(vars(part)) for part in (engine, engine.backend, engine.conditioner)]


def test_who_fails_while_turns_are_taken_leaves_with_a_reason_and_the_others_go_on(model: Model, inputs: Inputs):
    candidates = [Candidate(EAGER), Candidate(BASELINE)]
    for candidate in candidates:
        set_up(candidate, CPU, model, inputs, PLAN, None)
    warm = {count: len(calls) for count, calls in candidates[0].calls.items()}
    assert warm == {0: PLAN.warm_calls, 3: PLAN.warm_calls}
    failing = candidates[1].engine
    assert failing is not None

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no more\nof this")

    failing.backend.denoise = fail  # type: ignore[method-assign]
    take_turns(candidates, inputs, 3, lambda _number: True)
    assert candidates[1].error == "ValueError: no more of this"
    assert candidates[1].engine is None
    assert {count: len(calls) for count, calls in candidates[0].calls.items()} == {0: 3, 3: 3}


def test_turns_end_when_they_are_told_to(model: Model, inputs: Inputs):
    candidate = Candidate(EAGER)
    set_up(candidate, CPU, model, inputs, PLAN, None)
    take_turns([candidate], inputs, 100, lambda number: number < 2)
    assert {len(calls) for calls in candidate.calls.values()} == {2}


def test_agreement_is_known_for_known_differences():
    wanted = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)
    found = wanted.clone()
    assert agreement(found, wanted)["psnr_db"] is None
    found[1] += 2
    told = agreement(found, wanted)
    assert told["psnr_db"] == pytest.approx(20 * torch.tensor(255.0 / 2**0.5).log10().item())
    assert told["psnr_worst_frame_db"] == pytest.approx(20 * torch.tensor(255.0 / 2).log10().item())
    assert told["largest_difference_levels"] == 2


def test_rows_compare_with_the_same_number_format_where_there_is_one():
    def timed(name: str, dtype: torch.dtype, ms: float) -> Candidate:
        call = Call(ms, dict.fromkeys(STAGES, ms / 5))
        return Candidate(Spec(name, dtype), calls={0: [call]})

    candidates = [
        timed("baseline", torch.float32, 80.0),
        timed("baseline", torch.bfloat16, 40.0),
        timed("eager", torch.float32, 60.0),
        timed("compile", torch.bfloat16, 10.0),
        Candidate(Spec("openvino", torch.float32), error="not installed"),
    ]
    found = rows(candidates, {}, {}, 4)
    assert found[2]["calls"]["0"]["times_baseline"] == pytest.approx(80 / 60)
    assert found[3]["calls"]["0"]["times_baseline"] == pytest.approx(4)
    assert found[3]["calls"]["0"]["times_eager"] == pytest.approx(6)  # there is no other eager
    assert found[4]["calls"] == {}


def test_a_state_with_keyframes_looks_for_more_as_a_stream_does(networks: Networks, inputs: Inputs):
    engine = Engine(networks)
    state = with_keyframes(engine, stream(engine, inputs, len(inputs.windows)).state, 1)
    assert state.call >= networks.config.keyframes.first_call
    assert state.keyframes == 1
    for kv in state.reference.kv.values():
        assert not torch.equal(*kv.key.chunk(2, dim=1))


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--backends", "quick"], "'quick' is not known: use eager, compile"),
        (["--backends", "eager:int3"], "dtype 'int3' is not known"),
        (["--backends", "eager+int8"], "'eager+int8' is not known: use eager, compile"),
        (["--dtype", "int3"], "dtype 'int3' is not known"),
        (["--device", "toaster"], "device 'toaster' is not available"),
        (["--weights", "nowhere"], "nowhere: no such weights folder"),
        (["--keyframes", "0,4"], "4: this model keeps 3 at most"),
        (["--weights", "full", "--device", "auto"], "the full shape takes minutes a call on a CPU"),
        (["--output", "file/out.json"], "file/out.json: cannot be written"),
    ],
)
def test_what_cannot_be_run_ends_in_one_line(
    small: str,
    options: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    Path("file").touch()
    assert speed.main(["--weights", small, "--device", "cpu", *options]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--rounds", "0"], ["--keyframes", "x"], ["--limit-s", "0"], ["--limit-s", "nan"], ["--fast"]]
)
def test_options_of_the_wrong_kind_end_in_one_line(options: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        speed.main(options)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert options[0] in error
    assert error.count("\n") == 1
