"""Random, smooth performances: speech, blinks, glances, nods and slow turns of the head (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personalive.errors import InputError
from personalive.synthetic.motion import EXPRESSION_INDEX, EXPRESSION_NAMES, SIGNED_EXPRESSIONS, Motion

YAW_LIMIT_DEG, PITCH_LIMIT_DEG, ROLL_LIMIT_DEG = 40.0, 25.0, 25.0
_MASK = (1 << 64) - 1


def chance(seed: int, channel: int, index: int) -> float:
    """Uniform value in [0, 1) that depends on the three numbers alone (splitmix64)."""
    h = (seed * 0x9E3779B97F4A7C15 + channel * 0xD1B54A32D192ED03 + (index + 1000003) * 0x8CB92BA72F3D8DD7) & _MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = ((h ^ (h >> shift)) * factor) & _MASK
    return ((h ^ (h >> 31)) >> 11) / float(1 << 53)


def _ease(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * t * (t * (6.0 * t - 15.0) + 10.0)


@dataclass(frozen=True, slots=True)
class Performance:
    """A clip's motion by frame number: random access, endless, smooth in time.

    Attributes:
        seed: all of it depends on this.
        fps: frames per second.
        intensity: 1 is lively conversation, 0 a still neutral face.
    """

    seed: int
    fps: float = 25.0
    intensity: float = 1.0

    @classmethod
    def sample(cls, seed: int, fps: float = 25.0, intensity: float = 1.0) -> Performance:
        """The performance of a seed.

        Raises:
            InputError: fps not above 0, or intensity outside 0..2.
        """
        if not fps > 0 or not 0 <= intensity <= 2:
            raise InputError(f"performance: fps {fps}, intensity {intensity}; use fps above 0 and intensity 0..2")
        return cls(seed, fps, intensity)

    @staticmethod
    def frontal_neutral() -> Motion:
        """The motion of a good portrait: frontal, eyes open, mouth closed."""
        return Motion.neutral()

    def at(self, frame: int) -> Motion:
        """Motion of frame ``frame`` (any integer)."""
        t = frame / self.fps
        k = self.intensity
        speech = self._talking(t)
        yaw = self._range(1, 8.0, 33.0) * self._noise(10, t, 2.3) + 3.0 * self._noise(11, t, 0.7)
        pitch = self._range(2, 4.0, 15.0) * self._noise(12, t, 2.0) + 3.5 * speech * self._noise(13, t, 0.42)
        roll = self._range(3, 3.0, 15.0) * self._noise(14, t, 2.7) + 1.5 * self._noise(15, t, 0.8)
        yaw += self._range(4, -6.0, 6.0)
        scale = 1.0 + self._range(5, -0.06, 0.06) + 0.04 * k * self._noise(16, t, 3.5)
        sway = 0.0022 * roll
        tx = self._range(6, -0.03, 0.03) + k * (0.045 * self._noise(17, t, 2.9) + sway)
        ty = self._range(7, -0.02, 0.02) + k * 0.04 * self._noise(18, t, 3.1)
        return Motion(
            yaw_deg=float(np.clip(k * yaw, -YAW_LIMIT_DEG, YAW_LIMIT_DEG)),
            pitch_deg=float(np.clip(k * pitch, -PITCH_LIMIT_DEG, PITCH_LIMIT_DEG)),
            roll_deg=float(np.clip(k * roll, -ROLL_LIMIT_DEG, ROLL_LIMIT_DEG)),
            scale=scale,
            tx=float(np.clip(tx, -0.1, 0.1)),
            ty=float(np.clip(ty, -0.1, 0.1)),
            expression=self._expression(t, speech),
        )

    def _range(self, channel: int, low: float, high: float) -> float:
        return low + (high - low) * chance(self.seed, channel, 0)

    def _noise(self, channel: int, t: float, knot_s: float) -> float:
        """Smooth noise in [-1, 1] with a random value every ``knot_s`` seconds."""
        at = t / knot_s + chance(self.seed, channel, -7)
        i = int(np.floor(at))
        a, b = (2.0 * chance(self.seed, channel, j) - 1.0 for j in (i, i + 1))
        return a + (b - a) * _ease(at - i)

    def _talking(self, t: float) -> float:
        """0 in pauses, 1 in phrases; phrases fill most of blocks of 4 seconds."""
        block_s = 4.0
        i = int(np.floor(t / block_s))
        local = t - i * block_s
        start = 0.7 * chance(self.seed, 20, i)
        stop = 2.3 + 1.6 * chance(self.seed, 21, i)
        if chance(self.seed, 22, i) < 0.15:
            return 0.0
        return _ease((local - start) / 0.25) * _ease((stop + 0.0 - local) / 0.30)

    def _syllables(self, t: float) -> float:
        """Opening of the mouth by syllables, about 4 to 5 per second, 0..1."""
        period_s = self._range(23, 0.19, 0.25)
        i = int(np.floor(t / period_s))
        total = 0.0
        for j in range(i - 2, i + 3):
            centre = (j + 0.5 + 0.5 * (chance(self.seed, 24, j) - 0.5)) * period_s
            height = 0.15 + 0.85 * chance(self.seed, 25, j) ** 1.2
            height *= chance(self.seed, 26, j) > 0.12
            distance = abs(t - centre) / (0.85 * period_s)
            total = max(total, height * _ease(1.0 - distance))
        return total

    def _blink(self, t: float) -> float:
        """One blink in each block of 2.6 seconds, sometimes two."""
        block_s, total = 2.6, 0.0
        i = int(np.floor(t / block_s))
        for j in (i - 1, i):
            at = (j + 0.1 + 0.65 * chance(self.seed, 30, j)) * block_s
            starts = [at, at + 0.34] if chance(self.seed, 31, j) < 0.15 else [at]
            for start in starts:
                x = t - start
                total = max(total, _ease(x / 0.10) * _ease((0.32 - x) / 0.16))
        return total

    def _gaze(self, t: float, channel: int) -> float:
        """Held targets with quick jumps between them, -1..1."""
        hold_s = 1.1
        at = t / hold_s
        i = int(np.floor(at))
        jump = 0.55 * chance(self.seed, 42, i)
        a, b = (self._target(channel, j) for j in (i - 1, i))
        return a + (b - a) * _ease((at - i - jump) * hold_s / 0.12)

    def _target(self, channel: int, index: int) -> float:
        value = 2.0 * chance(self.seed, channel, index) - 1.0
        return value * (0.9 if chance(self.seed, 43, index) < 0.45 else 0.2)

    def _mood(self, channel: int, t: float, knot_s: float = 2.2, floor: float = 0.1) -> float:
        return max(self._noise(channel, t, knot_s) - floor, 0.0) / (1.0 - floor)

    def _expression(self, t: float, speech: float) -> np.ndarray:
        syllable = self._syllables(t) * speech
        shape = self._noise(50, t, 0.30)
        smile, skew = self._mood(51, t), 0.3 * self._noise(52, t, 3.0)
        blink = self._blink(t)
        brow, down, wide = (
            self._mood(53, t, 1.6, 0.2),
            self._mood(54, t, 2.4, 0.3),
            self._mood(55, t, 2.0, 0.4),
        )
        frown = self._mood(56, t, 2.8, 0.35) * (1.0 - smile)
        squint = 0.35 * smile + 0.5 * self._mood(57, t, 2.5, 0.4)
        outer, lopsided = self._mood(58, t, 1.9, 0.3), self._noise(59, t, 2.6)
        sneer = self._mood(60, t, 2.9, 0.55)
        values = {
            "jawOpen": 0.95 * syllable + 0.35 * self._mood(61, t, 2.4, 0.65),
            "jawLeft": 0.35 * self._mood(62, t, 1.3, 0.4),
            "jawRight": 0.35 * self._mood(63, t, 1.3, 0.4),
            "mouthSmileLeft": 0.9 * smile * (1 + skew),
            "mouthSmileRight": 0.9 * smile * (1 - skew),
            "mouthFrownLeft": 0.8 * frown,
            "mouthFrownRight": 0.8 * frown,
            "mouthPucker": speech * max(shape - 0.15, 0.0) + 0.8 * self._mood(64, t, 1.9, 0.6),
            "mouthFunnel": 0.8 * syllable * max(self._noise(65, t, 0.33), 0.0),
            "mouthStretchLeft": 0.8 * speech * max(-shape - 0.1, 0.0),
            "mouthStretchRight": 0.8 * speech * max(-shape - 0.1, 0.0),
            "mouthUpperUp": 0.7 * syllable * max(self._noise(66, t, 0.4), 0.0) + 0.3 * smile,
            "mouthLowerDown": 0.7 * syllable * max(self._noise(67, t, 0.4), 0.0),
            "mouthPress": 0.6 * (1.0 - speech) * self._mood(68, t, 1.7, 0.5),
            "eyeBlinkLeft": blink,
            "eyeBlinkRight": blink,
            "eyeWideLeft": wide,
            "eyeWideRight": wide,
            "eyeSquintLeft": squint,
            "eyeSquintRight": squint,
            "eyeLookX": self._gaze(t, 40),
            "eyeLookY": 0.6 * self._gaze(t, 41),
            "browInnerUp": brow,
            "browDownLeft": 0.7 * down,
            "browDownRight": 0.7 * down,
            "browOuterUpLeft": outer * (1 + 0.5 * lopsided) + 0.4 * wide,
            "browOuterUpRight": outer * (1 - 0.5 * lopsided) + 0.4 * wide,
            "cheekPuff": 0.9 * (1.0 - speech) * self._mood(69, t, 2.1, 0.6),
            "noseSneerLeft": 0.8 * sneer,
            "noseSneerRight": 0.8 * sneer,
        }
        low = np.array([-1.0 if name in SIGNED_EXPRESSIONS else 0.0 for name in EXPRESSION_NAMES])
        vector = np.zeros(len(EXPRESSION_NAMES))
        for name, value in values.items():
            # eyes blink and look at full strength: scaling them would leave lids half closed
            gain = min(self.intensity, 1.0) if name.startswith(("eyeBlink", "eyeLook")) else self.intensity
            vector[EXPRESSION_INDEX[name]] = gain * value
        return np.clip(vector, low, 1.0).astype(np.float32)
