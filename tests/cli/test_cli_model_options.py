"""Options of the model, from every command that runs one to ``load_engine``."""

from __future__ import annotations

from typing import Any

import pytest

from personalive.errors import InputError
from support.clips import read_video
from support.small_decoder import write_small_decoder

GIVEN = {
    "device": "cpu",
    "dtype": "float32",
    "vram": "12",
    "backend": "openvino",
    "decoder": "small",
}
FLAGS = ("--weights", "w", *(word for name, value in GIVEN.items() for word in (f"--{name}", value)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of ``load_engine``, wherever it is called; it loads nothing."""
    found: dict[str, Any] = {}

    def load(weights: Any, **options: Any) -> None:
        found.update(options, weights=weights)
        assert callable(found.pop("progress")) and callable(found.pop("preparing"))
        found.pop("frames", None)  # videos know how many; the other commands do not
        raise InputError("that will do")

    for module in ("offline.animate", "offline.record", "runtime.load"):
        monkeypatch.setattr(f"personalive.{module}.load_engine", load)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("animate", "me.png", "clip.mp4"),
        ("camera", "me.png", "--from", "clip.mp4", "--to", "video.mp4"),
        ("evaluate", "synthetic:1", "-o", "scores"),
    ],
)
def test_every_option_of_the_model_reaches_it(run, portrait, driving, asked, command):
    done = run(*command, *FLAGS)
    assert done.error_lines == ["error: that will do"]
    assert asked == {"weights": "w", **GIVEN}


def test_a_recording_decodes_nothing_and_takes_no_decoder(run, driving, asked):
    given = {name: value for name, value in GIVEN.items() if name != "decoder"}
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    done = run("motion", "record", driving, "take.safetensors", "--weights", "w", *flags)
    assert done.error_lines == ["error: that will do"]
    assert asked == {"weights": "w", **given}
    assert run("motion", "record", driving, "take.safetensors", "--decoder", "small").code == 2


def test_every_option_of_the_model_reaches_the_server(run, monkeypatch):
    found: dict[str, Any] = {}

    def worker(weights: str, model: dict[str, Any], **_: Any) -> None:
        found.update(model, weights=weights)
        raise InputError("that will do")

    monkeypatch.setattr("personalive.server.run.make_worker", worker)
    monkeypatch.setattr("personalive.server.run._check_port", lambda host, port: None)
    assert run("serve", *FLAGS).error_lines == ["error: that will do"]
    assert found == {"weights": "w", **GIVEN}


def test_a_video_by_a_small_decoder(run, place, portrait, driving, small_weights):
    write_small_decoder(place / "small")
    done = run("animate", portrait, driving, "--weights", small_weights, "--framing", "center", "--decoder", "small")
    assert (done.code, done.err) == (0, "")
    assert '"decoder": "AutoencoderTiny"' in (place / "clip_by_me.json").read_text()
    assert len(read_video(place / "clip_by_me.mp4").images) == 10


def test_a_decoder_that_is_not_there(run, place, portrait, driving, small_weights):
    done = run("animate", portrait, driving, "--weights", small_weights, "--framing", "center", "--decoder", "taesd")
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert "personalive weights download --decoder taesd" in done.err
