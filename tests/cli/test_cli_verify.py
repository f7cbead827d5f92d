"""`personalive verify`: plain words, and an exit code that tells a changed file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from personalive.media.credentials import Origin
from personalive.media.still import save_png


@pytest.fixture
def image(place: Path) -> Path:
    return save_png("image.png", np.zeros((64, 64, 3), np.uint8), origin=Origin(model="tiny"))


def test_a_whole_file_is_told_in_plain_words(run, image):
    done = run("verify", "image.png")
    assert (done.code, done.err) == (0, "")
    told = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert told["program"].startswith("PersonaLive ")
    assert told["model"] == "tiny"
    assert "a model generated it" in told["made"]
    assert "PersonaLive on this machine" in told["signed"]
    assert told["unchanged"] == "yes"


def test_changed_files_and_those_without_credentials_fail_in_one_line(run, place, image):
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)
    done = run("verify", "image.png")
    assert done.code == 1
    assert "unchanged    no" in done.out
    assert len(done.error_lines) == 1
    assert "image.png: is not what was signed" in done.err
    save_png("plain.png", np.zeros((64, 64, 3), np.uint8))
    (place / "text.txt").write_text("nothing")
    for name in ("plain.png", "text.txt"):
        done = run("verify", name)
        assert (done.code, done.out, len(done.error_lines)) == (1, "", 1)
        assert "no content credentials" in done.err
    assert run("verify", "missing.mp4").code == 1
