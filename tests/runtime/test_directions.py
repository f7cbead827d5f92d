"""Directions of mouth and eyes: recovered from readers whose truth is known, turned one without the other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from personalive import load_engine
from personalive.engine.controls import Controls
from personalive.engine.directions import Directions
from personalive.engine.engine import Engine
from personalive.errors import InputError
from personalive.runtime import directions as module
from personalive.runtime.directions import DirectionConfig, find_directions
from personalive.synthetic import Identity, Motion, render
from personalive.synthetic.motion import EXPRESSION_INDEX

TOKENS, WIDTH = 4, 5
PEOPLE = DirectionConfig(people=3)


def reader(ways: torch.Tensor, monkeypatch, noise: float = 0.0):
    """Reads tokens that are linear in what is drawn; images stand for (mouth, eyes, who)."""
    drawn, chance = [], torch.Generator().manual_seed(8)

    def draw(person: Identity, motion: Motion, size_px: int):
        values = [motion.expression[EXPRESSION_INDEX[name]] for name in ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight")]
        drawn.append((values[0], values[1], person))
        assert values[1] == values[2]
        return type("Drawn", (), {"image": np.zeros((size_px, size_px, 3), np.uint8)})

    def read(images: np.ndarray) -> torch.Tensor:
        rows = drawn[-len(images) :]
        used = torch.tensor([[mouth, eyes] for mouth, eyes, _ in rows], dtype=torch.float32)
        person = float(hash(str(rows[0][2])) % 7)
        shaken = noise * torch.randn(len(rows), TOKENS * WIDTH, generator=chance)
        return (used @ ways + person + shaken).view(1, -1, TOKENS, WIDTH)

    monkeypatch.setattr(module, "render", draw)
    return read


@pytest.fixture
def ways() -> torch.Tensor:
    return torch.randn(2, TOKENS * WIDTH, generator=torch.Generator().manual_seed(3))


def test_what_a_part_does_is_found_whoever_shows_it(ways, monkeypatch):
    found = find_directions(reader(ways, monkeypatch), 8, PEOPLE)
    torch.testing.assert_close(found.directions, ways, atol=1e-5, rtol=1e-4)
    assert found.agreement == {"mouth": pytest.approx(1), "eyes": pytest.approx(1)}
    found.check(["mouth", "eyes"])


def test_where_people_do_not_agree_the_part_is_refused_alone(ways, monkeypatch):
    found = find_directions(reader(ways * torch.tensor([[0.0], [100.0]]), monkeypatch, noise=1.0), 8)
    found.check(["eyes"])
    with pytest.raises(InputError, match=r"mouth: .* no common direction .* leave mouth at 1"):
        found.check(["eyes", "mouth"])


def test_each_part_is_scaled_and_nothing_else(ways):
    own = torch.randn(1, 1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(4))
    rest = torch.randn(1, 6, TOKENS * WIDTH, generator=torch.Generator().manual_seed(5))
    rest -= rest @ torch.linalg.pinv(ways) @ ways  # what neither mouth nor eyes explain
    used = torch.rand(1, 6, 2, generator=torch.Generator().manual_seed(6))
    tokens = own + (used @ ways + rest).view(1, 6, TOKENS, WIDTH)
    directions = Directions(ways, {"mouth": 1.0, "eyes": 1.0})
    gains = {"mouth": 0.0, "eyes": 1.5}
    wanted = own + ((used * torch.tensor([0.0, 1.5])) @ ways + rest).view(1, 6, TOKENS, WIDTH)
    torch.testing.assert_close(directions.scaled(tokens, own, gains), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(directions.scaled(tokens, own, {"mouth": 1.0, "eyes": 1.0}), tokens)


# --- the bundled model ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> Engine:
    return load_engine("tiny", device="cpu", dtype="float32")


def test_the_bundled_model_knows_mouth_and_eyes(bundled: Engine):
    """Truth: an unseen person at rest, and with mouth or eyes in use."""
    person, still = Identity.sample(10_000_123), Motion.neutral()

    def shown(**parts: float) -> np.ndarray:
        expression = still.expression.copy()
        for name, value in parts.items():
            expression[EXPRESSION_INDEX[name]] = value
        return render(person, dataclasses.replace(still, expression=expression), bundled.image_size).image

    speaking = shown(jawOpen=0.8, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    own, both, blink, mouth = bundled.encode_motion(
        np.stack([shown(), speaking, shown(eyeBlinkLeft=1.0, eyeBlinkRight=1.0), shown(jawOpen=0.8)])
    ).tokens[0]
    directions = bundled.conditioner.directions

    def left(gains: dict[str, float], goal: torch.Tensor) -> float:
        turned = directions.scaled(both[None, None], own[None, None], gains)[0, 0]
        return float((turned - goal).norm() / (both - goal).norm())

    assert left({"mouth": 0.0, "eyes": 1.0}, blink) < 0.6
    assert left({"mouth": 1.0, "eyes": 0.0}, mouth) < 0.6
    assert left({"mouth": 0.0, "eyes": 0.0}, own) < 0.6


def test_controls_reach_the_conditioning(bundled: Engine):
    person = Identity.sample(10_000_124)
    frames = np.stack([render(person, Motion.neutral(), bundled.image_size).image] * 4)
    expression = Motion.neutral().expression.copy()
    expression[EXPRESSION_INDEX["jawOpen"]] = 0.8
    frames[1:] = render(person, dataclasses.replace(Motion.neutral(), expression=expression), frames.shape[1]).image
    state = bundled.start(frames[0])
    motion = bundled.encode_motion(frames)
    with torch.no_grad():
        plain = bundled.conditioner.condition(state, motion).motion[:, -1]
        shut = bundled.conditioner.condition(state, motion, controls=Controls(mouth=0.0)).motion[:, -1]
    own = state.reference.motion[:, 0]
    assert (shut - own).norm() < 0.5 * (plain - own).norm()
