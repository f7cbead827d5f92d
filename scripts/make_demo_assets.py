"""Make the driving clips of the demos: `synthetic` for the bundled diffusion model, `photo` for photographs.

python scripts/make_demo_assets.py synthetic
python scripts/make_demo_assets.py photo PORTRAIT TRACKS

The first renders two synthetic people that training never sees. The second lets a generated portrait perform recorded
expression tracks (a file as `personalive data heads --tracks` takes it), with turns of the head and a smile added.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from personalive.engine.state import Motion
from personalive.evaluation.config import EvaluationConfig
from personalive.media.still import load_still, save_png
from personalive.media.writer import VideoWriter
from personalive.runtime.face import load_face_engine
from personalive.synthetic import Identity, Performance, render
from personalive.vision.face_landmarks import BLENDSHAPE_NAMES
from personalive.vision.faces import find_detector
from personalive.vision.framing import frame_portrait
from personalive.vision.keypoints import HeadPose

ASSETS = Path(__file__).parents[1] / "src" / "personalive" / "assets"
FPS = 25
SYNTHETIC_SIZE_PX, SYNTHETIC_SECONDS = 256, 6
FIRST_SEED = EvaluationConfig.first_seed
PORTRAIT, DRIVER, PERFORMANCE = FIRST_SEED + 89, FIRST_SEED + 93, FIRST_SEED + 247

PHOTO_FRAMES, JOINED_FRAMES = 176, 10  # a multiple of a chunk; frames over which one track goes over into the next
TRACKS = ("bbaf2n", "lbax4n")
SMILE_S, BROWS_S = 6.1, 5.9  # when


def synthetic(folder: Path) -> None:
    """Write portrait.png and driving.mp4."""
    portrait = render(Identity.sample(PORTRAIT), Performance.frontal_neutral(), SYNTHETIC_SIZE_PX)
    save_png(folder / "portrait.png", portrait.image)
    driver, performance = Identity.sample(DRIVER), Performance.sample(PERFORMANCE, fps=FPS)
    frames = (render(driver, performance.at(f), SYNTHETIC_SIZE_PX).image for f in range(SYNTHETIC_SECONDS * FPS))
    _write(folder / "driving.mp4", frames, SYNTHETIC_SIZE_PX)


def photo(portrait: Path, tracks: Path, folder: Path) -> None:
    """Write driving.mp4 of a portrait (an image file) that performs the tracks."""
    engine = load_face_engine()
    framed = frame_portrait(load_still(portrait), find_detector(None))
    state = engine.start(framed.image)
    frames: list[np.ndarray] = []
    motion = performed(tracks, TRACKS)
    for first in range(0, PHOTO_FRAMES, engine.chunk_frames):
        state, images = engine.step(state, motion[first // engine.chunk_frames])
        frames.extend(images.numpy())
    _write(folder / "driving.mp4", frames, engine.image_size)


def performed(tracks: Path, names: Sequence[str]) -> list[Motion]:
    """Motion chunk by chunk: the tracks' blendshapes one after the other, a smile and raised brows at the end."""
    with np.load(tracks, allow_pickle=False) as stored:
        known = [str(name) for name in stored["blendshape_names"]]
        columns = [known.index(name) for name in BLENDSHAPE_NAMES]
        values = stored[f"{names[0]}.blendshapes"].astype(np.float32)[:, columns]
        for name in names[1:]:
            values = _joined(values, stored[f"{name}.blendshapes"].astype(np.float32)[:, columns])
    values = np.concatenate([values, values[-1:].repeat(max(PHOTO_FRAMES - len(values), 0), 0)])[:PHOTO_FRAMES]
    time_s = np.arange(PHOTO_FRAMES) / FPS
    _raise(values, ("mouthSmileLeft", "mouthSmileRight"), 0.75 * _bump(time_s, SMILE_S, 0.42))
    _raise(values, ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), 0.55 * _bump(time_s, BROWS_S, 0.35))
    begun = 1 - np.exp(-time_s / 0.5)
    yaw = 13 * np.sin(2 * np.pi * time_s / 5.2) * begun * (1 - _bump(time_s, SMILE_S + 0.2, 0.6))
    pitch, roll = (
        3 * np.sin(2 * np.pi * time_s / period + phase) * begun for period, phase in ((3.1, 0), (4.3, 0.7))
    )
    tokens = np.concatenate([values, np.ones((PHOTO_FRAMES, 1), np.float32)], 1)
    chunk = load_face_engine().chunk_frames
    return [
        Motion(torch.from_numpy(tokens[s])[None, :, None], _poses(yaw[s], pitch[s], roll[s]))
        for s in (slice(first, first + chunk) for first in range(0, PHOTO_FRAMES, chunk))
    ]


def _joined(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    share = np.linspace(0, 1, JOINED_FRAMES, dtype=np.float32)[:, None]
    between = (1 - share) * before[-JOINED_FRAMES:] + share * after[:JOINED_FRAMES]
    return np.concatenate([before[:-JOINED_FRAMES], between, after[JOINED_FRAMES:]])


def _bump(time_s: np.ndarray, middle_s: float, width_s: float) -> np.ndarray:
    return np.exp(-0.5 * ((time_s - middle_s) / width_s) ** 2).astype(np.float32)


def _raise(values: np.ndarray, names: Iterable[str], least: np.ndarray) -> None:
    for name in names:
        column = BLENDSHAPE_NAMES.index(name)
        values[:, column] = np.maximum(values[:, column], least)


def _poses(*angles_deg: np.ndarray) -> HeadPose:
    yaw, pitch, roll = (torch.from_numpy(a.astype(np.float32)) for a in angles_deg)
    count = len(yaw)
    return HeadPose(
        kp=torch.zeros(count, 21, 3),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        t=torch.zeros(count, 3),
        scale=torch.ones(count, 1),
    )


def _write(path: Path, frames: Iterable[np.ndarray], size_px: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, size_px, size_px, time_base=Fraction(1, FPS), fps=Fraction(FPS)) as video:
        for number, image in enumerate(frames):
            video.write(image, Fraction(number, FPS), Fraction(1, FPS))


def main() -> None:
    """Read the command line and make one of the clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("synthetic")
    of_photo = commands.add_parser("photo")
    of_photo.add_argument("portrait", type=Path)
    of_photo.add_argument("tracks", type=Path)
    args = parser.parse_args()
    if args.command == "synthetic":
        synthetic(ASSETS / "demo")
    else:
        photo(args.portrait, args.tracks, ASSETS / "photo" / "demo")


if __name__ == "__main__":
    main()
