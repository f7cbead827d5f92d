"""The morphable face that ships: its parts, its rims, its size and its notice."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from personalive.vision.face_model import EYE, face_model

FOLDER = Path(str(resources.files("personalive"))) / "assets" / "face"


def test_the_asset_is_small_and_its_notice_lies_beside_it():
    assert (FOLDER / "face.npz").stat().st_size <= 1_000_000
    notice = (FOLDER / "LICENSE").read_text()
    assert "MIT License" in notice
    assert "(c) 2020 USC Institute for Creative Technologies" in notice


def test_fields_belong_to_the_vertices():
    model = face_model()
    count = len(model.neutral)
    assert model.identities.shape == (30, count, 3)
    assert model.expressions.shape == (len(model.expression_names), count, 3)
    assert model.part.shape == model.oval.shape == model.source.shape == (count,)
    assert model.triangles.max() < count
    assert set(model.pin_landmarks.ravel().tolist()) < set(range(468))
    assert face_model() is model


def test_expressions_move_what_their_names_say():
    model = face_model()
    jaw = model.expressions[model.index("jawOpen")]
    lips = [model.rims[f"lip_inner_{row}_right"][-1] for row in ("upper", "lower")]
    assert jaw[lips[1], 1] < -2.5 < jaw[lips[0], 1]
    blink = model.expressions[model.index("eyeBlink_L")]
    assert np.abs(blink[model.rims["lid_upper_left"]]).max() > 0.5
    assert np.abs(blink[model.rims["lid_upper_right"]]).max() < 0.05
    with pytest.raises(ValueError, match="not in tuple"):
        model.index("jawShut")


@pytest.mark.parametrize("side", ["right", "left"])
def test_rims_run_from_the_outer_corner_and_share_their_ends(side: str):
    model = face_model()
    for upper, lower in (("lid_upper", "lid_lower"), ("lip_inner_upper", "lip_inner_lower")):
        above, below = model.rims[f"{upper}_{side}"], model.rims[f"{lower}_{side}"]
        assert above[0] == below[0]
        x = np.abs(model.neutral[above, 0])
        assert x[0] > x[-1]
        middle = len(above) // 2, len(below) // 2
        assert model.neutral[above[middle[0]], 1] >= model.neutral[below[middle[1]], 1]


def test_the_eyes_are_holes_that_the_eyeballs_fill():
    model = face_model()
    rim = model.neutral[np.concatenate([model.rims["lid_upper_left"], model.rims["lid_lower_left"]])]
    centre = rim.mean(0)[:2]
    corners = model.neutral[model.triangles][..., :2]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]

    def side(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (q[:, 0] - p[:, 0]) * (centre[1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (centre[0] - p[:, 0])

    front = model.neutral[model.triangles][..., 2].min(1) > 5
    over = front & (side(a, b) > 0) & (side(b, c) > 0) & (side(c, a) > 0)
    assert set(model.triangle_part[over].tolist()) <= {EYE}
    assert over.any()


def test_lips_inside_take_the_texture_of_the_rim():
    model = face_model()
    changed = np.flatnonzero(model.source != np.arange(len(model.source)))
    rim = np.concatenate([rim for name, rim in model.rims.items() if name.startswith("lip_inner")])
    assert len(changed) > 100
    assert set(model.source[changed].tolist()) <= set(rim.tolist())
