"""Strict loading into modules without values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from personalive.checkpoints.key_map import Exempt, KeyRules, Rename
from personalive.checkpoints.networks import without_values
from personalive.checkpoints.strict import load_files, load_strict
from personalive.errors import CheckpointError


class Toy(nn.Module):
    """Parameters, a stored float and a stored integer buffer, and a table that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("table", torch.arange(4.0) / 3, persistent=False)


def values() -> dict[str, Tensor]:
    return {
        "inner.weight": torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]),
        "inner.bias": torch.tensor([1.0, 2.0]),
        "norm.weight": torch.tensor([3.0, 4.0]),
        "norm.bias": torch.tensor([5.0, 6.0]),
        "norm.running_mean": torch.tensor([7.0, 8.0]),
        "norm.running_var": torch.tensor([9.0, 10.0]),
        "norm.num_batches_tracked": torch.tensor(11),
    }


def empty_toy() -> Toy:
    with without_values():
        return Toy()


def without(key: str) -> dict[str, Tensor]:
    return {k: v for k, v in values().items() if k != key}


def test_modules_without_values_hold_no_weights_but_keep_their_tables() -> None:
    before = torch.random.get_rng_state()
    toy = empty_toy()
    assert toy.inner.weight.is_meta
    assert toy.inner.bias.is_meta
    assert torch.equal(toy.get_buffer("table"), torch.arange(4.0) / 3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_fills_in_the_wanted_format(dtype: torch.dtype) -> None:
    toy = empty_toy()
    load_strict(toy, values(), "w.pth", dtype=dtype)
    for key, expected in values().items():
        wanted = expected.to(dtype) if expected.is_floating_point() else expected
        assert torch.equal(toy.state_dict()[key], wanted), key
        assert toy.state_dict()[key].dtype == wanted.dtype
    assert torch.equal(toy.get_buffer("table"), (torch.arange(4.0) / 3).to(dtype))
    assert isinstance(toy.inner.weight, nn.Parameter)


def test_without_a_format_the_module_keeps_its_own() -> None:
    toy = Toy().half()
    load_strict(toy, values(), "w.pth")
    assert {t.dtype for t in toy.parameters()} == {torch.float16}
    assert torch.equal(toy.inner.bias, torch.tensor([1.0, 2.0], dtype=torch.float16))


def test_the_module_shares_no_memory_with_the_source() -> None:
    toy, source = empty_toy(), values()
    load_strict(toy, source, "w.pth")
    source["inner.bias"].fill_(99)
    assert toy.inner.bias.tolist() == [1.0, 2.0]


def test_a_replaced_file_does_not_reach_a_loaded_module(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(values(), path)
    toy = empty_toy()
    load_files(toy, [path])
    with path.open("r+b") as file:  # in place: a mapping would show it
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(toy.inner.weight, values()["inner.weight"])


def test_every_kind_of_difference_is_named_in_one_line() -> None:
    wrong = without("inner.bias") | {f"extra{i}": torch.ones(1) for i in range(5)}
    wrong["norm.bias"] = torch.ones(3)
    wrong["norm.num_batches_tracked"] = torch.tensor(1.5)
    with pytest.raises(CheckpointError) as caught:
        load_strict(empty_toy(), wrong, "w.pth")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("w.pth: ")
    assert "1 missing (inner.bias)" in message
    assert "5 unexpected (extra0, extra1, extra2, ...)" in message
    assert "norm.bias: file 3 float, model 2 float" in message
    assert "norm.num_batches_tracked: file scalar float, model scalar integer" in message


def test_a_refused_file_leaves_the_module_untouched() -> None:
    toy = Toy()
    before = {k: v.clone() for k, v in toy.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_strict(toy, without("norm.bias"), "w.pth")
    assert all(torch.equal(before[k], v) for k, v in toy.state_dict().items())


def test_exceptions_hold_for_exactly_what_they_name() -> None:
    rules = KeyRules(
        ignored=(Exempt(r"head\.(weight|bias)", "x"),),
        optional=(Exempt(r".*\.num_batches_tracked", "x"),),
    )
    toy = empty_toy()
    load_strict(toy, without("norm.num_batches_tracked") | {"head.bias": torch.ones(9)}, "w.pth", rules=rules)
    assert toy.state_dict()["norm.num_batches_tracked"].item() == 0
    with pytest.raises(CheckpointError, match=r"1 unexpected \(head.bias2\)"):
        load_strict(empty_toy(), values() | {"head.bias2": torch.ones(9)}, "w.pth", rules=rules)
    with pytest.raises(CheckpointError, match=r"1 missing \(norm.bias\)"):
        load_strict(empty_toy(), without("norm.bias"), "w.pth", rules=rules)


def test_an_optional_key_without_a_value_of_its_own_is_refused() -> None:
    rules = KeyRules(optional=(Exempt(r"inner\.bias", "x"),))
    with pytest.raises(CheckpointError, match=r"inner\.bias has no value"):
        load_strict(empty_toy(), without("inner.bias"), "w.pth", rules=rules)


def test_renamed_and_flattened_keys() -> None:
    rules = KeyRules(
        renames=(Rename(r"old\.(weight|bias)", r"inner.\1", "x"),),
        flattened=(Exempt(r"inner\.weight", "x"),),
    )
    old = {k.replace("inner.", "old."): v for k, v in values().items()}
    old["old.weight"] = old["old.weight"][:, :, None, None]
    toy = empty_toy()
    load_strict(toy, old, "w.pth", rules=rules)
    assert torch.equal(toy.inner.weight, values()["inner.weight"])
    with pytest.raises(CheckpointError, match="2x3x1x1"):
        load_strict(empty_toy(), values() | {"inner.weight": torch.ones(2, 3, 1, 1)}, "w.pth")


@pytest.mark.parametrize(
    "second", [lambda k: "norm" in k, lambda k: k.endswith("weight"), lambda k: False, lambda k: True]
)
def test_any_split_over_two_files_loads(tmp_path: Path, second: Callable[[str], bool]) -> None:
    paths = [tmp_path / "one.pth", tmp_path / "two.pth"]
    torch.save({k: v for k, v in values().items() if not second(k)}, paths[0])
    torch.save({k: v for k, v in values().items() if second(k)}, paths[1])
    toy = empty_toy()
    load_files(toy, paths)
    assert all(torch.equal(toy.state_dict()[k], v) for k, v in values().items())


def test_of_equal_keys_the_later_file_wins_and_shapes_must_agree(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pth", tmp_path / "two.safetensors"
    torch.save(values(), one)
    save_file({"inner.bias": torch.tensor([-1.0, -2.0])}, two)
    toy = empty_toy()
    load_files(toy, [one, two])
    assert toy.inner.bias.tolist() == [-1.0, -2.0]
    save_file({"inner.bias": torch.ones(3)}, two)
    with pytest.raises(CheckpointError, match="different models"):
        load_files(empty_toy(), [one, two])


def test_an_incomplete_union_names_both_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pth", tmp_path / "two.pth"
    torch.save(without("norm.bias"), one)
    torch.save({}, two)
    with pytest.raises(CheckpointError, match=r"one\.pth \+ .*two\.pth: .*1 missing \(norm\.bias\)"):
        load_files(empty_toy(), [one, two])
