"""A folder of portraits to a set of photo heads: framed alike, with landmarks and masks; what cannot serve goes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from personalive.checkpoints.files import whole_folder
from personalive.errors import InputError
from personalive.media.still import is_still, load_still
from personalive.runtime.face import load_face_reader
from personalive.synthetic.photo_head import MODEL_UNIT, ORIGIN
from personalive.synthetic.photo_heads import (
    ARRAYS_FILE,
    FORMAT,
    IMAGES,
    INDEX_FILE,
    TRACKS_FILE,
    VERSION,
    read_tracks,
)
from personalive.vision.face_fit import fit_face
from personalive.vision.face_landmarks import FaceReader
from personalive.vision.face_model import LANDMARKS

SIZE_PX = 384  # of the stored images
LEAST_FACE_PX = 60  # height of a face below which a photograph is left out
_MASK_PX, _QUALITY = 192, 95
_OPEN_MOUTH = 0.1  # gap of the lips, in heights of the face, above which a face is not at rest
_LIPS, _UPRIGHT = (13, 14), (10, 152)  # landmarks: lips' inner middles, forehead and chin


@dataclass(frozen=True)
class HeadsReport:
    """Outcome: heads and tracks in the set, and photographs left out by reason."""

    heads: int
    tracks: int
    dropped: Mapping[str, int]


Known = Mapping[str, tuple[np.ndarray, np.ndarray | None]]  # pixels (478, 3) by file name, and person masks


def read_landmarks(path: Path) -> Known:
    """
    Raises:
        InputError: not a file with ``names`` and ``landmarks_px`` (N, 478, 3).
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, points = [str(name) for name in stored["names"]], stored["landmarks_px"]
            masks = stored["person_mask"] if "person_mask" in stored.files else [None] * len(names)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no file of landmarks ({error}); it needs names and landmarks_px") from None
    if points.shape != (len(names), LANDMARKS, 3) or len(masks) != len(names):
        shapes = f"landmarks of shape {points.shape}, {len(masks)} masks"
        raise InputError(f"{path}: {shapes}; give ({len(names)}, {LANDMARKS}, 3) and a mask for each, or none")
    return dict(zip(names, zip(points, masks, strict=True), strict=True))


def make_heads(
    photos: Path,
    out: Path,
    landmarks: Path | None,
    tracks: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> HeadsReport:
    """Write a set of photo heads.

    Args:
        photos: folder of portraits.
        out: folder of the set, new.
        landmarks: file as ``read_landmarks`` takes it; None finds faces by the bundled networks.
        tracks: file as ``read_tracks`` takes it.
        progress: called with the share done.

    Raises:
        InputError: a folder or file that is missing, or not one portrait that can serve.
        OutputError: ``out`` exists.
    """
    if not photos.is_dir():
        raise InputError(f"{photos}: no such folder; check the name")
    known: Known = {} if landmarks is None else read_landmarks(landmarks)
    reader = load_face_reader() if landmarks is None else None
    count = len(read_tracks(tracks)) if tracks is not None else 0
    files = sorted(path for path in photos.iterdir() if path.is_file() and is_still(path))
    kept, dropped = [], Counter()
    with whole_folder(out) as folder:
        (folder / IMAGES).mkdir()
        for done, path in enumerate(files):
            reason, head = _prepared(path, known, reader)
            if head is None:
                dropped[reason] += 1
            else:
                jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(head[0]), quality=_QUALITY, colorsubsampling="444")
                (folder / IMAGES / f"{len(kept):04d}.jpg").write_bytes(jpeg)
                kept.append((path.name, *head[1:]))
            progress((done + 1) / len(files))
        if not kept:
            reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items()) or "no images"
            raise InputError(f"{photos}: not one portrait could be kept ({reasons})")
        names, points, masks = zip(*kept, strict=True)
        arrays = {"landmarks_px": np.stack(points).astype(np.float32), "person_masks": np.stack(masks)}
        np.savez_compressed(folder / ARRAYS_FILE, allow_pickle=False, **arrays)
        index = {"format": FORMAT, "version": VERSION, "size_px": SIZE_PX, "names": names}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")
        if tracks is not None:
            shutil.copyfile(tracks, folder / TRACKS_FILE)
    return HeadsReport(len(kept), count, dict(dropped))


def _prepared(
    path: Path, known: Known, reader: FaceReader | None
) -> tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
    """Framed image, landmarks and mask of one portrait, or the reason why not."""
    points, mask = known.get(path.name, (None, None))
    if reader is not None:
        reading = reader.read(load_still(path))
        points = None if reading is None else reading.landmarks
    if points is None:
        return ("without landmarks" if reader is None else "without a face"), None
    height = float(np.linalg.norm(points[_UPRIGHT[0], :2] - points[_UPRIGHT[1], :2]))
    if not np.isfinite(points).all() or height < LEAST_FACE_PX:
        return "too small", None
    if np.linalg.norm(points[_LIPS[0], :2] - points[_LIPS[1], :2]) > _OPEN_MOUTH * height:
        return "with open mouth", None
    return "", framed(load_still(path), points, mask)


def framed(
    image: np.ndarray, landmarks_px: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Portrait cut and scaled so that its head lies where a rendered head of scale 1 does.

    Args:
        image: (H, W, 3) uint8.
        landmarks_px: (478, 3).
        mask: (h, w) uint8 over the whole portrait, or None.

    Returns:
        Image (S, S, 3), landmarks in its pixels (478, 3), mask (s, s), all zero if there is none. Beyond the portrait
        its edge is repeated.
    """
    fit = fit_face(landmarks_px)
    centre = fit.pose.place(ORIGIN[None].astype(np.float32))[0, :2]
    zoom = SIZE_PX * MODEL_UNIT / (2 * fit.pose.scale_px)
    offset = SIZE_PX / 2 - zoom * centre
    points = landmarks_px.astype(np.float64) * zoom
    points[:, :2] += offset
    cut = _cut(image, zoom, offset, SIZE_PX)
    if mask is None:
        return cut, points, np.zeros((_MASK_PX, _MASK_PX), np.uint8)
    whole = cv2.resize(mask, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    share = _MASK_PX / SIZE_PX
    return cut, points, _cut(whole, zoom * share, offset * share, _MASK_PX)


def _cut(image: np.ndarray, zoom: float, offset: np.ndarray, side: int) -> np.ndarray:
    """Square of ``zoom`` · place + ``offset``, averaged where it shrinks; pixel centres lie at halves."""
    if zoom < 0.6:
        small = cv2.resize(image, None, fx=2 * zoom, fy=2 * zoom, interpolation=cv2.INTER_AREA)
        zoom *= image.shape[1] / small.shape[1]
        image = small
    shift = offset + 0.5 * zoom - 0.5
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
