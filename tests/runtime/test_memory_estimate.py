"""The computed memory of the released shapes: each preset is within its card, and the page says what is counted."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from personalive.config import RELEASED_VALUES

ROOT = Path(__file__).parents[2]
CONTEXT_BYTES = 500_000_000  # CUDA's own, at most usually


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory_benchmark", ROOT / "benchmarks" / "memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["memory_benchmark"] = importlib.util.module_from_spec(spec)  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(script: ModuleType):
    return script.estimate()


def test_the_counter_counts_what_is_alive_and_no_more(script):
    weight = torch.empty(10, device="meta")

    def run() -> None:
        a = torch.empty(1000, device="meta") + 1  # 4000 bytes twice, then once
        b = a[:500] * weight.sum()  # a view costs nothing; 4 bytes for the sum
        del a
        torch.empty(250, device="meta")
        _ = b.view(-1)

    with script._Alive({weight.untyped_storage()._cdata}) as counted:
        run()
    assert counted.peak == 2 * 4000
    assert counted.now == 0


def test_weights_are_those_of_the_release(found):
    parameters = 2 * RELEASED_VALUES
    assert parameters <= sum(found.weights.values()) < 1.002 * parameters  # and a few tables


def test_each_preset_is_within_its_card_and_the_smaller_ones_within_the_goal(found):
    peaks = {one.preset: one.peak for one in found.presets}
    assert peaks["12"] <= 7.5e9
    assert all(peak + CONTEXT_BYTES <= 0.95e9 * int(name) for name, peak in peaks.items())
    assert peaks["8"] < peaks["12"] < peaks["16"]


def test_decoding_in_slices_takes_less_than_the_denoiser_and_a_whole_chunk_more(found):
    alive = {step.name: step.alive for step in found.steps}
    assert alive["decoder, 2 frames at a time"] < alive["denoiser"]
    assert alive["denoiser"] < alive["decoder, 4 frames at a time"]


def test_the_page_says_what_is_counted(script, found):
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(table in page for table in script.tables(found).split("\n\n"))
