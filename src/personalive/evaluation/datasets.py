"""Datasets: synthetic heads with ground truth, or a folder of ordinary videos.

A case is one portrait and one driving video, read frame by frame, any number of times; nothing is kept.
S is the side of the images compared.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

from personalive.errors import InputError, OutputError
from personalive.evaluation.config import EvaluationConfig
from personalive.media.config import MediaConfig
from personalive.media.paths import reason, temporary_beside
from personalive.media.reader import open_video
from personalive.media.still import save_png
from personalive.media.writer import VideoWriter
from personalive.synthetic import Identity, Motion, Performance, render
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector
from personalive.vision.framing import DrivingFramer, FramedFrame, FrameTime, FramingMode
from personalive.vision.resize import ImageArray

Kind = Literal["self", "cross"]
KINDS: tuple[Kind, ...] = ("self", "cross")
SYNTHETIC = "synthetic"
_CONFIG = EvaluationConfig()


@dataclass(frozen=True, slots=True)
class Sample:
    """One driving frame, with the ground truth of the output where it is known; images (S, S, 3) uint8."""

    driver: ImageArray
    truth: ImageArray | None = None
    motion: Motion | None = None  # of a synthetic head
    cut: bool = False  # begins a new shot of the driver
    time: Fraction = Fraction(0)  # seconds in the driving video


@dataclass(frozen=True)
class Case:
    """One portrait and one driving video.

    ``truth_id`` is equal for cases with the same ground truth; empty where there is none.
    """

    name: str
    kind: Kind
    portrait: Callable[[], ImageArray]
    samples: Callable[[], Iterator[Sample]]
    frames: int | None = None  # where known beforehand
    person: Identity | None = None  # of a synthetic head
    truth_id: str = ""


class Dataset(Protocol):
    """Source of cases."""

    name: str
    skipped: list[str]  # a line for each file that could not be used
    notes: list[str]  # remarks on those that were used; grows while cases are read

    def cases(self, kind: Kind) -> list[Case]:
        """All cases of a kind, in a fixed order. Opens nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Limits and framing of a dataset."""

    size_px: int
    people: int | None = None  # at most so many cases of a kind
    frames: int | None = None  # at most so many of each case; synthetic cases have a default
    framing: FramingMode = "auto"
    center_fallback: bool = False
    framing_scale: float = FramingConfig.driving_scale
    pairs: Path | None = None  # file of portraits and their drivers, for a folder


def open_dataset(name: str, options: DatasetOptions, detector: FaceDetector | None) -> Dataset:
    """Open ``synthetic``, ``synthetic:16``, ``synthetic:100-115``, or a folder of videos.

    Args:
        detector: finds faces in videos with framing "auto".

    Raises:
        InputError: no such dataset, or nothing in it.
    """
    if name == SYNTHETIC or name.startswith(f"{SYNTHETIC}:"):
        if options.pairs is not None:
            raise InputError(
                "--pairs names videos of a folder: leave it out for synthetic heads, whose drivers are fixed"
            )
        return SyntheticHeads(name, options)
    return VideoFolder(Path(name), options, detector)


# --- synthetic heads ----------------------------------------------------------------------------------------


class SyntheticHeads:
    """People and performances that training never saw; person n performs n, in cross cases shown by another."""

    def __init__(self, name: str, options: DatasetOptions) -> None:
        self.name, self.skipped, self.notes = name, [], []
        self._options = options
        self._numbers = _numbers(name, options.people)

    def cases(self, kind: Kind) -> list[Case]:
        """See ``Dataset``."""
        return [self._case(number, kind) for number in self._numbers]

    def _case(self, number: int, kind: Kind) -> Case:
        person = Identity.sample(_CONFIG.first_seed + number)
        driver = Identity.sample(_CONFIG.first_seed + _CONFIG.driver_offset + number) if kind == "cross" else None
        performance = Performance.sample(_CONFIG.first_seed + number)
        size, frames = self._options.size_px, self._options.frames or _CONFIG.frames
        name = f"person{number:03}"
        return Case(
            name=name if driver is None else f"driver{number:03}_by_{name}",
            kind=kind,
            portrait=lambda: render(person, performance.at(0), size).image,
            samples=partial(_perform, person, driver, performance, frames, size),
            frames=frames,
            person=person,
            truth_id=name,
        )


def _perform(
    person: Identity, driver: Identity | None, performance: Performance, frames: int, size_px: int
) -> Iterator[Sample]:
    for index in range(1, frames + 1):  # frame 0 is the portrait
        motion = performance.at(index)
        truth = render(person, motion, size_px).image
        shown = truth if driver is None else render(driver, motion, size_px).image
        yield Sample(shown, truth, motion, time=(index - 1) / Fraction(performance.fps))


def _numbers(name: str, people: int | None) -> range:
    """Numbers of the people that ``synthetic:...`` names."""
    asked = name.partition(":")[2]
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", asked) if asked else None
    if asked and match is None:
        raise InputError(f"dataset {name!r}: give synthetic:16 for sixteen people, or synthetic:100-115 for those")
    if match is None:
        numbers = range(_CONFIG.people)
    elif match[2] is None:
        numbers = range(int(match[1]))
    else:
        numbers = range(int(match[1]), int(match[2]) + 1)
    numbers = numbers[:people]
    if not numbers:
        raise InputError(f"dataset {name!r}: there is nobody in it: ask for at least one person, such as synthetic:8")
    return numbers


# --- a folder of videos -------------------------------------------------------------------------------------


class VideoFolder:
    """Ordinary videos. Self: the first frame is the portrait. Cross: it is driven by another video of the folder.

    Every video is framed to one square around the head per shot, as ``animate`` does.
    """

    def __init__(self, folder: Path, options: DatasetOptions, detector: FaceDetector | None) -> None:
        """Look at every video's first frame: one that cannot be read is left out and named in ``skipped``.

        Raises:
            InputError: not a folder, or no video in it that can be read.
        """
        self.name, self._options, self._detector = str(folder), options, detector
        self._videos, self.skipped = find_videos(folder)
        self.notes: list[str] = []
        if not self._videos:
            raise InputError(
                f"{folder}: no video in this folder: put some there ({', '.join(_CONFIG.video_suffixes)})"
            )
        for stem, path in list(self._videos.items()):
            try:
                open_video(path).close()
            except InputError as error:
                del self._videos[stem]
                self.skipped.append(str(error))
        if not self._videos:
            raise InputError(f"{folder}: not one video in it can be read; the first reason: {self.skipped[-1]}")

    def cases(self, kind: Kind) -> list[Case]:
        """See ``Dataset``.

        Raises:
            InputError: cross-reenactment of a single video, or pairs that cannot be read.
        """
        stems = [(stem, stem) for stem in self._videos] if kind == "self" else self._pairs()
        return [self._case(portrait, driving, kind) for portrait, driving in stems[: self._options.people]]

    def _case(self, portrait: str, driving: str, kind: Kind) -> Case:
        videos = self._videos
        return Case(
            name=portrait if kind == "self" else f"{driving}_by_{portrait}",
            kind=kind,
            portrait=lambda: next(self._framed(videos[portrait])).driver,
            samples=lambda: self._samples(videos[driving], with_truth=kind == "self"),
            frames=self._options.frames,
            truth_id=portrait if kind == "self" else "",
        )

    def _pairs(self) -> list[tuple[str, str]]:
        if self._options.pairs is not None:
            return read_pairs(self._options.pairs, set(self._videos))
        stems = list(self._videos)
        if len(stems) < 2:
            raise InputError(f"{self.name}: one video cannot drive another: add more, or use --no-cross")
        return [(stem, stems[(i + 1) % len(stems)]) for i, stem in enumerate(stems)]

    def _samples(self, video: Path, *, with_truth: bool) -> Iterator[Sample]:
        for sample in islice(self._framed(video), self._options.frames):
            yield replace(sample, truth=sample.driver) if with_truth else sample

    def _framed(self, video: Path) -> Iterator[Sample]:
        """Frames of a video as squares of S pixels; frames without a face repeat the last good one."""
        scale = self._options.framing_scale
        framer = DrivingFramer(
            self._detector,
            self._options.framing,
            "hold",
            self._options.size_px,
            allow_center_fallback=self._options.center_fallback,
            config=FramingConfig(portrait_scale=scale, driving_scale=scale),
        )
        with open_video(video) as reader:
            try:
                for frame in reader:
                    yield from map(_to_sample, framer.push(frame.image, FrameTime(frame.time, frame.duration)))
                yield from map(_to_sample, framer.flush())
            finally:  # also when only the first frames are wanted
                notes = [*reader.warnings, *([f"{video}: {framer.report.note}"] if framer.report.note else [])]
                self.notes += [note for note in notes if note not in self.notes]


def _to_sample(framed: FramedFrame) -> Sample:
    return Sample(framed.image, cut=framed.cut, time=framed.time.start if framed.time else Fraction(0))


def find_videos(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Videos directly in ``folder`` by stem, in order of their names, and a line for each of an ambiguous name.

    Raises:
        InputError: there is no such folder, or it may not be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder: check the name, or use synthetic:8") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: is a file: give the folder that holds the videos") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}): check its permissions") from None
    videos: dict[str, Path] = {}
    skipped = []
    for path in paths:
        if path.suffix.lower() not in _CONFIG.video_suffixes or path.name.startswith("."):
            continue
        if path.stem in videos:
            skipped.append(f"{path}: skipped, {videos[path.stem].name} has the same name but for the ending")
        else:
            videos[path.stem] = path
    return videos, skipped


def read_pairs(path: Path, stems: set[str]) -> list[tuple[str, str]]:
    """Read lines ``PORTRAIT,DRIVING`` of file names without endings; empty lines and comments (#) are left out.

    Raises:
        InputError: the file cannot be read, a line has not two names, or names a video that is not there.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): give a text file with lines PORTRAIT,DRIVING") from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        names = [cell.strip() for cell in next(csv.reader([line]))]
        if len(names) != 2:
            raise InputError(f"{path}: line {number} has {len(names)} names: write PORTRAIT,DRIVING")
        for name in names:
            if name not in stems:
                raise InputError(
                    f"{path}: line {number}: no video named {name!r} in the folder: leave the ending out"
                )
        pairs.append((names[0], names[1]))
    if not pairs:
        raise InputError(f"{path}: no pair in it: write lines PORTRAIT,DRIVING")
    return pairs


# --- inputs of other methods --------------------------------------------------------------------------------


def check_inputs_folder(folder: Path) -> Path:
    """Check that inputs can be written to this folder; creates nothing.

    Returns:
        Its absolute path.

    Raises:
        OutputError: it holds something already, or cannot be made there.
    """
    target = folder.absolute()
    if not target.parent.is_dir():
        raise OutputError(f"{folder}: the folder {target.parent} does not exist: create it or choose another")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{folder}: is there already: choose another folder for --inputs")
    return target


def write_inputs(cases: list[Case], folder: Path) -> list[str]:
    """Write ``NAME.png`` (portrait) and ``NAME.mp4`` (driving video, square, nearly lossless) of each case.

    The folder appears whole or not at all.

    Returns:
        A line for each case that could not be read.

    Raises:
        OutputError: as ``check_inputs_folder``, or the disk is full.
    """
    target = check_inputs_folder(folder)
    fresh, skipped = temporary_beside(target), []
    try:
        fresh.mkdir()
        for case in cases:
            try:
                _write_case(case, fresh)
            except InputError as error:
                skipped.append(f"{case.name} ({case.kind}, inputs): {error}")
        if target.exists():
            target.rmdir()
        fresh.rename(target)
    except OSError as error:
        raise OutputError(f"{folder}: could not be written ({reason(error)}): choose another folder") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return skipped


def _write_case(case: Case, folder: Path) -> None:
    portrait = case.portrait()
    side = portrait.shape[0]
    step, crf = Fraction(1, MediaConfig.default_fps), _CONFIG.inputs_crf
    with VideoWriter(folder / f"{case.name}.mp4", side, side, crf=crf) as video:
        before = None
        for sample in case.samples():
            if before is not None:
                step = sample.time - before.time
                video.write(before.driver, before.time, step)
            before = sample
        if before is not None:
            video.write(before.driver, before.time, step)
    save_png(folder / f"{case.name}.png", portrait)
