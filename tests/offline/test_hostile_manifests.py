"""Manifests that are damaged: rows and reasons, or one line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.offline.manifest import read_manifest
from support.hostile_files import hostile

GOOD = {
    "csv": b'portrait,driving,output,size,head-motion\nme.jpg,clip.mp4,first.mp4,,0.6\n"a, b.jpg",clip.mp4,,512,\n',
    "jsonl": b'{"portrait": "me.jpg", "driving": "clip.mp4", "size": 256}\n\n{"portrait": "me.jpg", "driving": "b"}',
}


@pytest.mark.parametrize("suffix", GOOD)
def test_a_damaged_manifest_gives_rows_and_reasons_or_one_line(tmp_path: Path, suffix: str):
    for name in ("me.jpg", "clip.mp4", "a, b.jpg"):
        (tmp_path / name).write_bytes(b"")
    rng, path, found = np.random.default_rng(4), tmp_path / f"list.{suffix}", Counter()
    for _ in range(150):
        change, content = hostile(rng, GOOD[suffix], list(GOOD.values()))
        path.write_bytes(content)
        try:
            batch = read_manifest(path)
        except InputError as error:
            assert "\n" not in str(error), change
            assert path.name in str(error), (change, str(error))
            found["refused"] += 1
        else:
            assert batch.rows or batch.problems, change
            assert not any("\n" in problem for problem in batch.problems), (change, batch.problems)
            found["read"] += 1
    assert found["read"] > 10 < found["refused"]
    assert {file.name for file in tmp_path.iterdir()} == {"me.jpg", "clip.mp4", "a, b.jpg", path.name}
