"""Identity of a synthetic person: every parameter of its looks."""

from __future__ import annotations

import colorsys
import dataclasses
from dataclasses import dataclass

import numpy as np

HAIR_STYLES: tuple[str, ...] = ("bald", "buzz", "short", "quiff", "bob", "long", "wavy", "curly", "bun")

_SKIN = np.array(
    [
        [0.98, 0.83, 0.74],
        [0.95, 0.76, 0.63],
        [0.85, 0.63, 0.47],
        [0.68, 0.46, 0.32],
        [0.48, 0.31, 0.21],
        [0.34, 0.215, 0.15],
    ]
)
_HAIR = np.array(
    [
        [0.07, 0.055, 0.05],
        [0.14, 0.09, 0.065],
        [0.27, 0.16, 0.09],
        [0.42, 0.26, 0.13],
        [0.74, 0.55, 0.30],
        [0.60, 0.24, 0.10],
        [0.66, 0.65, 0.64],
        [0.88, 0.78, 0.56],
    ]
)
_EYES = np.array(
    [
        [0.25, 0.13, 0.06],
        [0.42, 0.24, 0.09],
        [0.45, 0.40, 0.16],
        [0.25, 0.45, 0.28],
        [0.25, 0.48, 0.70],
        [0.45, 0.53, 0.58],
    ]
)
Colour = tuple[float, float, float]

SHAPE_NAMES: tuple[str, ...] = (
    "head_width",
    "cranium_height",
    "jaw_width",
    "jaw_length",
    "chin",
    "cheeks",
    "cheekbones",
    "forehead",
    "nose_length",
    "nose_width",
    "nose_projection",
    "nose_bridge",
    "nose_tip",
    "eye_size",
    "eye_spacing",
    "eye_slant",
    "eye_openness",
    "eye_depth",
    "brow_height",
    "mouth_width",
    "mouth_height",
    "lip_upper",
    "lip_lower",
    "ear_size",
    "ear_flare",
    "neck_width",
)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One synthetic person. Shape parameters run from -1 to 1 and 0 is average; colours are sRGB in 0..1."""

    seed: int  # the seed this person came from
    head_width: float = 0.0
    cranium_height: float = 0.0
    jaw_width: float = 0.0
    jaw_length: float = 0.0
    chin: float = 0.0  # + is prominent
    cheeks: float = 0.0  # + is full
    cheekbones: float = 0.0
    forehead: float = 0.0  # + is bulging
    nose_length: float = 0.0
    nose_width: float = 0.0
    nose_projection: float = 0.0
    nose_bridge: float = 0.0  # + is a bump, - a saddle
    nose_tip: float = 0.0  # + is turned up
    eye_size: float = 0.0
    eye_spacing: float = 0.0
    eye_slant: float = 0.0  # + has the outer corners higher
    eye_openness: float = 0.0
    eye_depth: float = 0.0  # + is deep-set
    brow_height: float = 0.0  # + is higher
    mouth_width: float = 0.0
    mouth_height: float = 0.0  # + is higher
    lip_upper: float = 0.0  # fullness
    lip_lower: float = 0.0
    ear_size: float = 0.0
    ear_flare: float = 0.0
    neck_width: float = 0.0
    brow_thickness: float = 0.5  # 0..1
    brow_arch: float = 0.5  # 0..1
    skin_tone: float = 0.3  # 0 very light .. 1 very dark
    skin: Colour = (0.9, 0.7, 0.57)
    blush: float = 0.4  # 0..1
    freckles: float = 0.0  # 0..1
    lips: Colour = (0.8, 0.45, 0.42)
    eye_colour: Colour = (0.42, 0.24, 0.09)
    lashes: float = 0.5  # 0..1
    beard: float = 0.0  # 0 none .. 0.4 stubble .. 1 full
    hair_style: str = "short"  # one of HAIR_STYLES
    hair: Colour = (0.27, 0.16, 0.09)
    hair_volume: float = 0.5  # 0..1
    hair_length: float = 0.5  # 0..1, long styles only
    hair_part: float = 0.0  # -1..1, side of the parting
    hairline: float = 0.0  # + is higher
    glasses: float = 0.0  # 0 none, 1 worn
    glasses_round: float = 0.5  # 0 square .. 1 round
    glasses_colour: Colour = (0.1, 0.1, 0.12)
    clothes: Colour = (0.3, 0.4, 0.6)
    clothes_second: Colour = (0.9, 0.9, 0.9)
    clothes_pattern: int = 0  # 0 plain, 1 stripes, 2 two-tone, 3 jacket over a shirt
    neckline: float = 0.3  # 0 high .. 1 deep
    shoulders: float = 0.0  # -1..1 width
    background: Colour = (0.5, 0.6, 0.7)
    background_second: Colour = (0.3, 0.35, 0.5)
    bokeh: float = 0.5  # 0..1 strength of the soft discs
    light_azimuth: float = -0.6  # radians, - is from the left
    light_elevation: float = 0.6  # radians
    light_warmth: float = 0.0  # -1..1

    @classmethod
    def sample(cls, seed: int) -> Identity:
        """A person that depends on ``seed`` alone."""
        rng = np.random.default_rng([seed, 7001])
        shape = {name: float(np.clip(rng.normal(0.0, 0.45), -1.0, 1.0)) for name in SHAPE_NAMES}
        tone = float(rng.random())
        style = HAIR_STYLES[int(rng.choice(len(HAIR_STYLES), p=_STYLE_SHARES))]
        beard = float(rng.choice([0.0, 0.35, 0.9], p=[0.5, 0.25, 0.25])) if style in _SHORT_STYLES else 0.0
        return cls(
            seed=seed,
            **shape,
            **_sample_looks(rng, tone),
            beard=beard,
            hair_style=style,
            **_sample_scene(rng),
        )

    def to_vector(self) -> np.ndarray:
        """(K,) float32, K = ``IDENTITY_VECTOR_SIZE``: all parameters but the seed, roughly unit-scaled.

        Colours become three values in [-1, 1], the hair style and the pattern are one-hot.
        """
        values: list[float] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "seed":
                continue
            if field.name == "hair_style":
                values += [float(value == name) for name in HAIR_STYLES]
            elif field.name == "clothes_pattern":
                values += [float(value == index) for index in range(4)]
            elif isinstance(value, tuple):
                values += [2.0 * channel - 1.0 for channel in value]
            else:
                values.append(float(value))
        return np.array(values, np.float32)


_SHORT_STYLES = ("bald", "buzz", "short", "quiff", "curly")
_STYLE_SHARES = (0.07, 0.09, 0.16, 0.13, 0.14, 0.13, 0.11, 0.09, 0.08)


def _pick(table: np.ndarray, position: float) -> np.ndarray:
    at = np.clip(position, 0.0, 1.0) * (len(table) - 1)
    low = min(int(at), len(table) - 2)
    return table[low] + (table[low + 1] - table[low]) * (at - low)


def _colour(values: np.ndarray | tuple[float, ...]) -> Colour:
    r, g, b = (float(np.clip(v, 0.0, 1.0)) for v in values)
    return r, g, b


def _hsv(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def _sample_looks(rng: np.random.Generator, tone: float) -> dict:
    skin = _pick(_SKIN, tone) * (1.0 + rng.normal(0.0, 0.02, 3))
    hair_index = int(rng.integers(0, 3 if tone > 0.65 else len(_HAIR)))
    hair = _HAIR[hair_index] * rng.uniform(0.85, 1.15)
    if rng.random() < 0.05:
        hair = np.array(_hsv(rng, (0.4, 0.7), (0.4, 0.8)))
    eye_position = rng.uniform(0.0, 0.25 if tone > 0.6 else 1.0)
    lips = skin * np.array([0.92, 0.60, 0.60]) + np.array([0.04, 0.0, 0.01])
    if rng.random() < 0.25:
        lips = 0.45 * lips + 0.55 * np.array([0.72, 0.16, 0.22])
    return {
        "skin_tone": tone,
        "skin": _colour(skin),
        "blush": float(rng.uniform(0.1, 0.9)),
        "freckles": float(rng.uniform(0.4, 1.0)) if tone < 0.35 and rng.random() < 0.3 else 0.0,
        "lips": _colour(lips),
        "eye_colour": _colour(_pick(_EYES, eye_position)),
        "lashes": float(rng.random()),
        "brow_thickness": float(rng.random()),
        "brow_arch": float(rng.random()),
        "hair": _colour(hair),
    }


def _sample_scene(rng: np.random.Generator) -> dict:
    first = _hsv(rng, (0.15, 0.6), (0.35, 0.9))
    shift = np.array(first) * rng.uniform(0.45, 0.8) + rng.normal(0.0, 0.05, 3)
    frame = _hsv(rng, (0.3, 0.8), (0.2, 0.6)) if rng.random() < 0.4 else (0.06, 0.055, 0.06)
    return {
        "hair_volume": float(rng.random()),
        "hair_length": float(rng.random()),
        "hair_part": float(rng.uniform(-1, 1)),
        "hairline": float(rng.uniform(-1, 1)),
        "glasses": float(rng.random() < 0.2),
        "glasses_round": float(rng.random()),
        "glasses_colour": _colour(frame),
        "clothes": _hsv(rng, (0.1, 0.75), (0.15, 0.9)),
        "clothes_second": _hsv(rng, (0.0, 0.5), (0.5, 0.98)),
        "clothes_pattern": int(rng.integers(0, 4)),
        "neckline": float(rng.random()),
        "shoulders": float(rng.uniform(-1, 1)),
        "background": _colour(first),
        "background_second": _colour(shift),
        "bokeh": float(rng.random()),
        "light_azimuth": float(rng.choice([-1, 1]) * rng.uniform(0.25, 0.95)),
        "light_elevation": float(rng.uniform(0.35, 0.8)),
        "light_warmth": float(rng.uniform(-1, 1)),
    }


IDENTITY_VECTOR_SIZE = len(Identity(seed=0).to_vector())
