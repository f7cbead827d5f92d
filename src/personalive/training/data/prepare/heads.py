"""A folder of portraits to a set of photo heads: framed alike, with landmarks and masks; what cannot serve goes."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from personalive.errors import InputError, OutputError
from personalive.media import is_still, load_still
from personalive.media.paths import write_whole
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


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Landmarks file: pixels (478, 3) by file name, and person masks where there are any."""

    points_px: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> Landmarks:
        """
        Raises:
            InputError: not a file with ``names`` and ``landmarks_px`` (N, 478, 3).
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                names, points = [str(name) for name in stored["names"]], stored["landmarks_px"]
                masks = stored["person_mask"] if "person_mask" in stored.files else None
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: no file of landmarks ({error}); it needs names and landmarks_px") from None
        if points.shape != (len(names), LANDMARKS, 3):
            raise InputError(f"{path}: landmarks of shape {points.shape}; give ({len(names)}, {LANDMARKS}, 3)")
        by_name = {} if masks is None else dict(zip(names, masks, strict=True))
        return cls(dict(zip(names, points, strict=True)), by_name)


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
        landmarks: file as ``Landmarks.read`` takes it; None finds faces by the bundled networks.
        tracks: file as ``read_tracks`` takes it.
        progress: called with the share done.

    Raises:
        InputError: a folder or file that is missing, or not one portrait that can serve.
        OutputError: ``out`` exists.
    """
    if not photos.is_dir():
        raise InputError(f"{photos}: no such folder; check the name")
    if out.exists():
        raise OutputError(f"{out}: exists; choose a new name")
    known = Landmarks({}, {}) if landmarks is None else Landmarks.read(landmarks)
    reader = load_face_reader() if landmarks is None else None
    count = len(read_tracks(tracks)) if tracks is not None else 0
    files = sorted(path for path in photos.iterdir() if path.is_file() and is_still(path))
    kept, dropped = [], Counter()
    with _whole_folder(out) as folder:
        for done, path in enumerate(files):
            reason, head = _prepared(path, known, reader)
            if head is None:
                dropped[reason] += 1
            else:
                jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(head[0]), quality=_QUALITY, colorsubsampling="444")
                write_whole(folder / IMAGES / f"{len(kept):04d}.jpg", jpeg)
                kept.append((path.name, *head[1:]))
            progress((done + 1) / len(files))
        if not kept:
            told = ", ".join(f"{number} {reason}" for reason, number in dropped.items()) or "no images"
            raise InputError(f"{photos}: not one portrait could be kept ({told})")
        _write_index(folder, kept)
        if tracks is not None:
            write_whole(folder / TRACKS_FILE, tracks.read_bytes())
    return HeadsReport(len(kept), count, dict(dropped))


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Folder to write into that appears as ``out`` whole or not at all."""
    temporary = out.with_name(f".personalive-{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / IMAGES).mkdir(parents=True)
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}); choose another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_index(folder: Path, kept: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        landmarks_px=np.stack([points for _, points, _ in kept]).astype(np.float32),
        person_masks=np.stack([mask for _, _, mask in kept]),
    )
    write_whole(folder / ARRAYS_FILE, buffer.getvalue())
    index = {"format": FORMAT, "version": VERSION, "size_px": SIZE_PX, "names": [name for name, _, _ in kept]}
    write_whole(folder / INDEX_FILE, json.dumps(index, indent=1).encode())


def _prepared(
    path: Path, known: Landmarks, reader: FaceReader | None
) -> tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
    """Framed image, landmarks and mask of one portrait, or the reason why not."""
    if reader is None:
        points = known.points_px.get(path.name)
    else:
        reading = reader.read(load_still(path))
        points = None if reading is None else reading.landmarks
    if points is None:
        return ("without landmarks" if reader is None else "without a face"), None
    height = float(np.linalg.norm(points[_UPRIGHT[0], :2] - points[_UPRIGHT[1], :2]))
    if not np.isfinite(points).all() or height < LEAST_FACE_PX:
        return "too small", None
    if np.linalg.norm(points[_LIPS[0], :2] - points[_LIPS[1], :2]) > _OPEN_MOUTH * height:
        return "with open mouth", None
    return "", framed(load_still(path), points, known.masks.get(path.name))


def framed(
    image: np.ndarray, landmarks_px: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Portrait cut and scaled so that its head lies where a drawn head of scale 1 does.

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
