"""An animated square put back into the photograph that it was cut from (ours).

The photograph shows through wherever a result does not differ from it, and at the square's borders whatever the
result shows there. So what is still keeps the photograph's own sharpness, and pixels with a mask of 0 equal it.

Letters: H, W height and width of the photograph, S side of the model's images, M side of the grid that masks are
made on.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from personalive.errors import InputError
from personalive.vision.config import PasteBackConfig
from personalive.vision.faces import FaceBox
from personalive.vision.framing import Framed
from personalive.vision.resize import ImageArray, check_image

OutputFrame = Literal["square", "portrait"]  # what is shown: the animated square, or the whole photograph with it


class PasteBack:
    """Puts results (S, S, 3) into one photograph, each without regard to the others.

    Attributes:
        width, height: pixels of the frames made, both even as 4:2:0 video needs them: the photograph's own, less
            its last column or row where that number is odd.
        note: one line that says so, or nothing.
    """

    def __init__(
        self, photograph: ImageArray, framed: Framed, still: ImageArray, config: PasteBackConfig | None = None
    ) -> None:
        """
        Args:
            photograph: (H, W, 3) uint8 RGB.
            framed: the photograph as framed.
            still: (S, S, 3) uint8, the framed square at the model's size: a result in which nothing moves.

        Raises:
            InputError: a photograph larger than video players take.
        """
        check_image(photograph)
        self._config = config = config or PasteBackConfig()
        height, width = photograph.shape[:2]
        if max(height, width) > config.max_side_px:
            raise InputError(
                f"a photograph of {width}x{height} px is too large for a video of its own size: shrink it to at most "
                f"{config.max_side_px} px a side"
            )
        self.width, self.height = width - width % 2, height - height % 2
        self.note = _cropped_note(width, height)
        self._photograph, self._square, self._still = photograph[: self.height, : self.width], framed.box, still
        self._grid = min(config.grid_px, still.shape[0])
        self._fade = self._border_fade()
        self._seam = 4 * self._fade * (1 - self._fade)  # where results and photograph meet
        self._face = np.zeros_like(self._fade) if framed.face is None else self._face_mask(framed.face)

    def put_back(self, result: ImageArray) -> ImageArray:
        """Photograph (H, W, 3) uint8 with ``result`` (S, S, 3) uint8 in its square; a new array."""
        square, frame = self._square, self._photograph.copy()
        matched = self._colour_matched(result)
        mask = self._mask(matched)
        left, top = max(square.x, 0), max(square.y, 0)
        right, bottom = min(square.x + square.side_px, self.width), min(square.y + square.side_px, self.height)
        inner = np.s_[top - square.y : bottom - square.y, left - square.x : right - square.x]
        region = np.s_[top:bottom, left:right]
        full = (square.side_px, square.side_px)
        method = cv2.INTER_AREA if square.side_px < matched.shape[0] else cv2.INTER_CUBIC
        moved = matched if matched.shape[:2] == full else cv2.resize(matched, full, interpolation=method)
        weight = cv2.resize(mask, full, interpolation=cv2.INTER_LINEAR)[inner]
        frame[region] = cv2.blendLinear(moved[inner], self._photograph[region], weight, 1 - weight)
        return frame

    # --- masks, all (M, M) float32 from 0, the photograph, to 1, the result ---------------------------------

    def _mask(self, matched: np.ndarray) -> np.ndarray:
        """Mask of what moves: 1 on the face and all that differs from the photograph, 0 at the square's borders."""
        settings, grid = self._config, self._grid
        change = cv2.absdiff(matched, self._still).max(axis=2)
        change = cv2.resize(change, (grid, grid), interpolation=cv2.INTER_AREA).astype(np.float32)
        reach = max(round(settings.spread_share * grid), 1)
        change = cv2.dilate(change, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
        change = cv2.GaussianBlur(change, (0, 0), reach / 2)
        low, high = settings.still_level, settings.moved_level
        return np.maximum(_smoothstep((change - low) / (high - low)), self._face) * self._fade

    def _border_fade(self) -> np.ndarray:
        """1 inside the square, 0 at those of its borders that lie in the photograph."""
        square = self._square
        across = self._side_fade(square.x, self.width)
        down = self._side_fade(square.y, self.height)
        return down[:, None] * across[None, :]

    def _side_fade(self, start: int, extent: int) -> np.ndarray:
        """(M,) along one side of the square, which begins at ``start`` in an image ``extent`` long."""
        cell = 1 / self._grid
        place = (np.arange(self._grid, dtype=np.float32) + 0.5) * cell
        before = place if start > 0 else np.ones_like(place)
        after = 1 - place if start + self._square.side_px < extent else np.ones_like(place)
        return _smoothstep((np.minimum(before, after) - cell) / self._config.fade_share)

    def _face_mask(self, face: FaceBox) -> np.ndarray:
        """Soft ellipse over the portrait's face, which keeps one sharpness whether it moves or not."""
        square, settings = self._square, self._config
        place = (np.arange(self._grid, dtype=np.float32) + 0.5) / self._grid * square.side_px
        across = (square.x + place - face.centre[0]) / (settings.face_share * face.width)
        down = (square.y + place - face.centre[1]) / (settings.face_share * face.height)
        return _smoothstep((settings.face_edge - np.hypot(across[None, :], down[:, None])) / (settings.face_edge - 1))

    # --- colours --------------------------------------------------------------------------------------------

    def _colour_matched(self, result: ImageArray) -> np.ndarray:
        """Result (S, S, 3) uint8 less what its colours differ by where it meets the photograph, carried on inwards.

        What moves there is no difference of colours, and counts for little.
        """
        settings, size = self._config, (self._grid, self._grid)
        difference = result.astype(np.float32) - self._still
        difference = cv2.resize(difference, size, interpolation=cv2.INTER_AREA)
        weight = self._seam * np.exp(-np.square(np.abs(difference).max(axis=2) / settings.colour_level))
        sigma = settings.colour_reach * self._grid
        total = cv2.GaussianBlur(difference * weight[..., None], (0, 0), sigma)
        shift = total / (cv2.GaussianBlur(weight, (0, 0), sigma) + settings.colour_doubt)[..., None]
        shift = cv2.resize(shift, result.shape[:2], interpolation=cv2.INTER_LINEAR)
        return (result - shift).round().clip(0, 255).astype(np.uint8)


def _smoothstep(value: np.ndarray) -> np.ndarray:
    """0 to 1 without a kink at either end; float32."""
    value = np.clip(value, 0, 1).astype(np.float32)
    return value * value * (3 - 2 * value)


def _cropped_note(width: int, height: int) -> str:
    lost = [name for name, length in (("column", width), ("row", height)) if length % 2]
    if not lost:
        return ""
    return f"{width}x{height} px, but a video's sides are even: it lacks the last {' and the last '.join(lost)}"
