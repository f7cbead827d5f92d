"""One video to its clips and its record. What runs in each worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
from av.error import FFmpegError

from personalive.errors import InputError
from personalive.media import Frame, VideoReader, open_isolated_video
from personalive.media.paths import write_whole
from personalive.training.data.prepare.clip_file import FILM_SUFFIX, TENSOR_SUFFIX
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.draft import Draft, Drop
from personalive.training.data.prepare.folder import CLIPS, RECORDS, Settings, Video
from personalive.training.data.prepare.stretches import View, Views
from personalive.vision.faces import FaceDetector


@dataclass
class Record:
    """Result of one video; its JSON file makes the clips part of the set."""

    video: str  # path below the folder of videos
    fingerprint: str
    frames: int = 0  # at the set's rate
    clips: list[dict[str, Any]] = field(default_factory=list)
    drops: list[dict[str, Any]] = field(default_factory=list)  # reason, start_s, frames, and perhaps a note
    warnings: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """JSON, the same for the same record."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


def prepare_video(
    video: Video,
    out: Path,
    settings: Settings,
    detector: FaceDetector,
    advance: Callable[[float, int], None],
    config: PrepareConfig,
) -> Record:
    """Write the clips of ``video`` below ``out`` and then its record.

    Args:
        advance: hears, with every frame read, the share of the video that is done, an estimate, and the number
            of frames at the set's rate.

    Raises:
        OutputError: the disk is full.
    """
    work = _Work(video, out, settings, detector, config)
    try:
        with open_isolated_video(video.path) as reader:
            for view in work.views.of(_told(reader, config.fps, advance)):
                work.take(view)
            work.end_clip()
            work.record.warnings = [work.named(line) for line in reader.warnings]
    except (InputError, FFmpegError, cv2.error, MemoryError) as error:
        work.give_up(str(error) or type(error).__name__)
    finally:
        work.close()
    record = work.finish()
    write_whole(out / RECORDS / f"{video.key}.json", record.to_bytes())
    return record


def _told(reader: VideoReader, fps: int, advance: Callable[[float, int], None]) -> Iterator[Frame]:
    length = max(float(reader.info.duration_s or 0), 1 / fps)
    for frame in reader:
        yield frame
        time = float(frame.time)
        advance(min(time / length, 1.0), round(time * fps))


class _Work:
    """The clips of one video as its frames come."""

    def __init__(
        self, video: Video, out: Path, settings: Settings, detector: FaceDetector, config: PrepareConfig
    ) -> None:
        self._video, self._out, self._settings, self._detector, self._config = video, out, settings, detector, config
        self.views = Views(detector, settings.size_px, settings.framing_scale, config)
        self.record = Record(video.name, video.fingerprint)
        self._draft: Draft | None = None
        self._shot = -1
        self._unseen = 0  # frames without a face since the last one with one
        self._unseen_since = 0.0

    def take(self, view: View) -> None:
        """The next frame of the video."""
        full = self._draft is not None and self._draft.frames >= round(self._config.max_clip_s * self._config.fps)
        if view.begins or full or not view.face:
            self.end_clip()
        self._shot += view.begins
        if not view.face:
            self._unseen_since = self._unseen_since if self._unseen else float(view.time)
            self._unseen += 1
            return
        self._end_unseen()
        if self._draft is None:
            path = self._out / CLIPS / f".personalive-{self._video.key}.tmp"
            self._draft = Draft(path, self._settings.size_px, self._detector, self._config)
        self._draft.add(view)

    def end_clip(self) -> None:
        """Judge the clip under way, if there is one."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        reason = draft.verdict()
        if reason is None:
            self._keep(draft)
        else:
            self._drop(reason, draft.start_s, draft.frames)
            draft.discard()

    def _keep(self, draft: Draft) -> None:
        name = f"{self._video.key}-{len(self.record.clips):03}"
        folder = self._out / CLIPS
        film, tensors = folder / (name + FILM_SUFFIX), folder / (name + TENSOR_SUFFIX)
        content, facts = draft.finish()
        (folder / f".personalive-{self._video.key}.tmp").replace(film)
        write_whole(tensors, content)
        sizes = {"film_bytes": film.stat().st_size, "tensor_bytes": len(content)}
        self.record.clips.append(
            {"clip": name, "video": self._video.name, "shot": self._shot} | asdict(facts) | sizes
        )

    def _drop(self, reason: Drop, start_s: float, frames: int, note: str = "") -> None:
        drop = {"reason": str(reason), "start_s": round(start_s, 3), "frames": frames}
        self.record.drops.append(drop | ({"note": note} if note else {}))

    def _end_unseen(self) -> None:
        if self._unseen:
            self._drop(Drop.NO_FACE, self._unseen_since, self._unseen)
        self._unseen = 0

    def give_up(self, why: str) -> None:
        """The rest cannot be read; what came before is kept."""
        self.end_clip()
        self._drop(Drop.UNREADABLE, 0.0, 0, self.named(why))

    def close(self) -> None:
        """Leave nothing half-written behind."""
        if self._draft is not None:
            self._draft.discard()
            self._draft = None

    def finish(self) -> Record:
        """The record of the whole video."""
        self._end_unseen()
        self.record.frames = self.views.frames
        told = sum(entry["frames"] for entry in (*self.record.clips, *self.record.drops))
        if self.record.frames > told:  # no face in the whole video: its frames never came out
            self._drop(Drop.NO_FACE, 0.0, self.record.frames - told)
        return self.record

    def named(self, line: str) -> str:
        """A message without the place of the video on this machine."""
        return line.replace(str(self._video.path), self._video.name)
