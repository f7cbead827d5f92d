"""A video made in parts, so that a run that is killed, even without warning, goes on from the last finished one.

A hidden folder beside the video holds the finished parts, each a closed stream of its own, and the state of the
performance after the last of them. The finished video is the parts joined, without encoding them again, in every run:
so one that was never interrupted makes the same frames. A video of less than a part is written as if there were none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import personalive
from personalive.engine.base import BaseEngine
from personalive.engine.stored_state import pack_state, unpack_state
from personalive.errors import OutputError
from personalive.media.audio import AudioCut
from personalive.media.credentials import Origin
from personalive.media.paths import alone_in, reason, remove, sample_digest, temporary_beside
from personalive.media.writer import VideoWriter
from personalive.offline.options import AnimateOptions, options_to_json
from personalive.progress import clock

_LOG = logging.getLogger(__name__)
_STATE = "state.safetensors"
_PART = "part-{:05}.mp4"
_DAMAGE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A finished part, of at least one frame."""

    start: str  # seconds of the video at which it begins, as a fraction
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Moment of a performance after a finished part, beside the video."""

    frames: int  # of the video
    seconds: float  # of work, in all runs
    state: Any  # of the stream and of whatever else goes on; values of ``stored_state``


def render_identity(
    engine: BaseEngine, options: AnimateOptions, inputs: Mapping[str, str | os.PathLike[str]], part_s: float
) -> dict[str, Any]:
    """Everything that decides the frames of a video, as JSON: a run goes on only where all of it is the same."""
    folder = engine.folder
    files = sorted(folder.rglob("*")) if folder is not None else []
    weights = [[str(file.relative_to(folder or file)), *_stamp(file)] for file in files if file.is_file()]
    return {
        **{name: [sample_digest(Path(path)), *_stamp(Path(path))] for name, path in inputs.items()},
        "options": options_to_json(asdict(options)),
        "weights": [engine.name, hashlib.sha256(json.dumps(weights).encode()).hexdigest()[:16]],
        "device": {"device": str(engine.device), **engine.facts},
        "version of personalive": [personalive.__version__, part_s],
    }


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class UnfinishedVideo:
    """Finished parts of a video, and the moment that they reach. Made by ``unfinished_video``."""

    def __init__(self, target: Path, folder: Path, identity: Mapping[str, Any]) -> None:
        self.target, self.folder = target, folder
        self._identity = json.loads(json.dumps(identity))
        self.parts: list[Part] = []

    def path(self, number: int) -> Path:
        """File of a part."""
        return self.folder / _PART.format(number)

    @property
    def next_path(self) -> Path:
        """File of the part that is not finished."""
        return self.path(len(self.parts))

    @property
    def resumable(self) -> str:
        """Note for the user of a run that ends early, or nothing."""
        if not self.parts:
            return ""
        return f"the same command goes on from {clock(float(self._end))} of the video"

    def resume(self, start: Any, device: torch.device) -> Reached | None:
        """Moment from which an earlier run of the same video can go on, told in a line; None for none.

        Args:
            start: the state with which the performance begins.
            device: of its tensors.
        """
        path, found = self.folder / _STATE, None
        if path.exists():
            try:
                found = self._read(path, start, device)
            except _DAMAGE as error:
                _LOG.debug("%s", path, exc_info=error)
                _LOG.warning("%s: what an earlier run left of it is damaged: it is made anew", self.target)
        self._clear(0 if found is None else len(self.parts))
        return found

    def _read(self, path: Path, start: Any, device: torch.device) -> Reached | None:
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["record"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        others = [name for name, value in self._identity.items() if record["identity"].get(name) != value]
        if others:
            _LOG.warning(
                "%s: an earlier run left it unfinished with other %s: it is made anew", self.target, others[0]
            )
            return None
        parts = [Part(**part) for part in record["parts"]]
        for number, part in enumerate(parts):
            if (size := self.path(number).stat().st_size) != part.size_bytes:
                raise ValueError(f"part {number} has {size} bytes")
        state = unpack_state(record["state"], start, tensors, device)
        self.parts, self._end = parts, Fraction(record["end"])
        _LOG.warning("%s: goes on from %s, which an earlier run reached", self.target, clock(float(self._end)))
        return Reached(record["frames"], record["seconds"], state)

    def add(self, start: Fraction, end: Fraction, reached: Reached, begun: Any) -> None:
        """Note that one more part is finished, at its ``path``.

        Args:
            start, end: of the part, in seconds of the video.
            reached: the moment after it.
            begun: state with which the performance began.

        Raises:
            OutputError: the disk is full, or refuses.
        """
        path, tensors = self.next_path, dict[str, torch.Tensor]()
        state = pack_state(reached.state, begun, tensors)
        temporary = temporary_beside(path)
        try:
            _to_disk(path)
            parts = [*self.parts, Part(start=str(start), size_bytes=path.stat().st_size)]
            record = {
                "identity": self._identity,
                "parts": [asdict(part) for part in parts],
                "end": str(end),
                "frames": reached.frames,
                "seconds": reached.seconds,
                "state": state,
            }
            save_file(tensors, temporary, {"record": json.dumps(record)})
            _to_disk(temporary)
            temporary.replace(self.folder / _STATE)
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"{self.target}: its state could not be written ({reason(error)}): free some space and run it again"
            ) from error
        finally:
            remove(temporary)
        self.parts, self._end = parts, end

    def _clear(self, kept: int) -> None:
        """Delete all that an earlier run left, but for its first parts."""
        names = {self.path(number).name for number in range(kept)} | ({_STATE} if kept else set())
        for path in self.folder.iterdir():
            if path.name not in names:
                remove(path)

    def discard(self) -> None:
        """Delete the folder; what cannot be deleted stays."""
        self.parts = []
        with suppress(OSError):
            self._clear(0)
            self.folder.rmdir()


@contextmanager
def unfinished_video(target: Path, identity: Mapping[str, Any]) -> Iterator[UnfinishedVideo]:
    """Parts of the video at ``target``, held against other runs; an error keeps the finished ones.

    Raises:
        OutputError: another run is making it, or its folder cannot be made.
    """
    name = hashlib.sha256(target.name.encode(errors="surrogateescape")).hexdigest()[:12]
    folder = target.with_name(f".personalive-{name}.parts")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: could not be begun ({reason(error)}); choose another folder") from None
    if folder.is_symlink():
        raise OutputError(f"{folder}: is a link, and parts of a video are not written through one; remove it")
    with alone_in(folder):
        unfinished = UnfinishedVideo(target, folder, identity)
        try:
            yield unfinished
        except BaseException:
            if not unfinished.parts:
                unfinished.discard()
            raise
        unfinished.discard()


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


class PartedWriter:
    """A ``VideoWriter`` in parts; a context manager as that is.

    Attributes:
        end: seconds of the video at which the last frame written ends.
        warnings: about the sound, one line each; after the end.
    """

    def __init__(
        self,
        unfinished: UnfinishedVideo,
        width: int,
        height: int,
        *,
        time_base: Fraction,
        fps: Fraction,
        audio_from: AudioCut | None,
        inputs: Iterable[str | os.PathLike[str]],
        origin: Origin | None,
    ) -> None:
        """
        Args:
            unfinished: takes the parts.
            width, height, time_base, fps, audio_from, inputs, origin: as of ``VideoWriter``.
        """
        self._unfinished = unfinished
        self._open = partial(
            VideoWriter, unfinished.target, width, height,
            time_base=time_base, fps=fps, inputs=list(inputs), origin=origin, work=unfinished.folder,
        )  # fmt: skip
        self._audio, self._part, self._start = audio_from, None, Fraction(0)
        self.end, self.warnings = Fraction(0), list[str]()

    @property
    def part_s(self) -> float:
        """Seconds of the part being written, so far."""
        return 0.0 if self._part is None else float(self.end - self._start)

    def write(self, image: np.ndarray, time: Fraction, duration: Fraction) -> None:
        """See ``VideoWriter``."""
        if self._part is None:
            first = not self._unfinished.parts  # which may be all of the video
            self._start = Fraction(0) if first else time
            self._part = self._open(audio_from=self._audio if first else None)
        self._part.write(image, time - self._start, duration)
        self.end = time + duration

    def finish_part(self, reached: Reached, begun: Any) -> None:
        """End the part being written; see ``UnfinishedVideo.add``."""
        assert self._part is not None
        self._part.close(self._unfinished.next_path)
        self._part = None
        self._unfinished.add(self._start, self.end, reached, begun)

    def _whole(self) -> VideoWriter:
        """The video as far as it is made, still open."""
        next_path = self._unfinished.next_path
        if self._part is not None:
            if not self._unfinished.parts:
                return self._part
            self._part.close(next_path)
        starts = [Fraction(part.start) for part in self._unfinished.parts]
        if next_path.exists():
            starts.append(self._start)
        video = self._open(audio_from=self._audio, like=self._unfinished.path(0))
        for number, start in enumerate(starts):
            video.append(self._unfinished.path(number), start)
        return video

    def __enter__(self) -> PartedWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None:
                with self._whole() as video:
                    pass
                self.warnings = video.warnings
            elif self._part is not None or self._unfinished.parts:
                with suppress(OutputError):  # the disk is full
                    self._whole().__exit__(kind, error, trace)
        except BaseException as late:
            error = late
            raise
        finally:
            if error is not None and (note := self._unfinished.resumable):
                error.add_note(note)
