"""The folder of prepared programs: whole or not at all, found again, bounded, and never a reason to fail silently."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from personalive.config import CACHE_ENV
from personalive.errors import OutputError
from personalive.runtime import cache as module
from personalive.runtime.cache import CacheConfig, ProgramCache, program_key


def filled(folder: Path) -> None:
    (folder / "net.bin").write_bytes(b"abc")


def unwanted(folder: Path) -> None:
    raise AssertionError(f"made again: {folder}")


def test_a_program_is_made_once(tmp_path: Path):
    store = ProgramCache(tmp_path / "cache")
    folder = store.folder("a", filled)
    assert (folder / "net.bin").read_bytes() == b"abc"
    assert ProgramCache(tmp_path / "cache").folder("a", unwanted) == folder


def test_one_that_fails_leaves_nothing(tmp_path: Path):
    store = ProgramCache(tmp_path)

    def half(folder: Path) -> None:
        filled(folder)
        raise RuntimeError("converter")

    with pytest.raises(RuntimeError, match="converter"):
        store.folder("a", half)
    assert list(tmp_path.iterdir()) == []


def test_those_used_longest_ago_go_first(tmp_path: Path):
    store = ProgramCache(tmp_path, CacheConfig(kept_programs=2))
    for age, key in ((300, "a"), (200, "b")):
        store.folder(key, filled)
        os.utime(tmp_path / key, (1e9 - age, 1e9 - age))
    store.folder("a", unwanted)  # used just now
    store.folder("c", filled)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_damaged_one_is_made_anew_once(tmp_path: Path):
    store = ProgramCache(tmp_path)

    def read(folder: Path) -> bytes:
        if (found := (folder / "net.bin").read_bytes()) != b"abc":
            raise ValueError("damaged")
        return found

    store.folder("a", filled)
    (tmp_path / "a" / "net.bin").write_bytes(b"ab")
    assert store.read("a", make=filled, read=read) == b"abc"
    assert store.read("a", make=unwanted, read=read) == b"abc"
    for _ in range(2):  # what is made badly is not made for ever
        with pytest.raises(ValueError, match="damaged"):
            store.read("b", make=lambda folder: (folder / "net.bin").touch() and None, read=read)


def test_want_of_memory_is_no_damage(tmp_path: Path):
    store = ProgramCache(tmp_path)
    folder = store.folder("a", filled)

    def read(_: Path) -> bytes:
        raise MemoryError

    with pytest.raises(MemoryError):
        store.read("a", make=unwanted, read=read)
    assert folder.is_dir()


def test_what_killed_processes_left_goes_in_time(tmp_path: Path):
    for name, age_s in ((".old.partial", 2 * 86_400), (".young.partial", 60)):
        (tmp_path / name).mkdir()
        filled(tmp_path / name)
        then = time.time() - age_s
        os.utime(tmp_path / name, (then, then))
    ProgramCache(tmp_path).folder("a", filled)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".young.partial", "a"]


def test_a_place_that_refuses_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"^[^\n]*PERSONALIVE_CACHE[^\n]*$"):
        ProgramCache(tmp_path / "file" / "cache").folder("a", filled)


@pytest.mark.parametrize("damage", [b"", b"[1]", b'{"a": 3}', b"\xff"])
def test_choices_survive_and_damage_only_costs_measuring_again(tmp_path: Path, damage: bytes):
    store = ProgramCache(tmp_path)
    assert store.get("a") is None
    store.put("a", {"backend": "eager"})
    store.put("b", {"backend": "openvino"})
    assert store.get("a") == {"backend": "eager"}
    (tmp_path / "choices.json").write_bytes(damage)
    assert store.get("a") is None
    store.put("a", {"backend": "eager"})
    assert store.get("a") == {"backend": "eager"}


def test_choices_are_bounded(tmp_path: Path):
    store = ProgramCache(tmp_path, CacheConfig(kept_choices=2))
    for key in "abca":
        store.put(key, {"backend": key})
    assert [store.get(key) for key in "abc"] == [{"backend": "a"}, None, {"backend": "c"}]


def test_a_place_that_refuses_forgets(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    store = ProgramCache(tmp_path / "file")
    store.put("a", {"backend": "eager"})
    assert store.get("a") is None


def test_keys_differ_where_anything_does():
    keys = {program_key("x", "torch", model=model, dtype=dtype) for model in "ab" for dtype in "cd"}
    assert len(keys) == 4
    assert program_key("x", "torch", model="a") == program_key("x", "torch", model="a")
    assert all(key.startswith("x-") and "/" not in key for key in keys)


def test_without_a_place_a_private_one_goes_with_the_process(tmp_path: Path, monkeypatch, caplog):
    refused = tmp_path / "file"
    refused.touch()
    monkeypatch.setenv(CACHE_ENV, str(refused / "below"))
    kept: list = []
    monkeypatch.setattr(module.atexit, "register", lambda *call, **named: kept.append((call, named)))
    module._writable.cache_clear()
    try:
        first, second = ProgramCache(), ProgramCache()
        assert first.root == second.root != refused / "below"
        assert first.root.stat().st_mode & 0o77 == 0  # nobody else's
        assert list(first.folder("key", filled).iterdir())
        assert [record.getMessage() for record in caplog.records] == [
            f"{refused}/below: prepared programs cannot be kept there (Not a directory): "
            f"they are made anew each time, until {CACHE_ENV} names a folder"
        ]
        (((remove, *arguments), named),) = kept
        remove(*arguments, **named)
        assert not first.root.exists()
    finally:
        module._writable.cache_clear()
