"""One video to its clips and its record. What runs in each worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.error import FFmpegError

from personalive.errors import InputError
from personalive.media.isolated import open_isolated_video
from personalive.media.paths import write_whole
from personalive.media.reader import Frame, VideoReader
from personalive.training.data.prepare.boxes import BOX_NAMES, fill_and_smooth, part_boxes
from personalive.training.data.prepare.clip_file import CLIPS, SIZES, ClipWriter, clip_files, tensor_bytes
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.folder import RECORDS, Video, forget
from personalive.training.data.prepare.stretches import View, views
from personalive.vision.faces import FaceBox, FaceDetector

DROPS = {  # reasons why something is not in the set
    "unreadable": "the file cannot be decoded",
    "no face": "no face is seen",
    "too short": "a face in one shot, without a pause, but too briefly; or the end of a long shot",
    "low frame rate": "too many frames would show the image before",
    "low resolution": "the square around the head would have to be enlarged too much",
    "face too small": "the face fills too little of its square, because it moves about",
    "face lost": "in too many frames the face cannot be found",
    "several faces": "a second face is in the square",
    "blurred": "the face is out of focus or smeared by compression",
}


def prepare_video(
    video: Video, out: Path, detector: FaceDetector, advance: Callable[[float, int], None], config: PrepareConfig
) -> None:
    """Write the clips of ``video`` below ``out`` anew, and then its record, which makes them part of the set.

    Args:
        advance: hears, with every frame read, the share of the video that is done, an estimate, and the number
            of frames at the set's rate.

    Raises:
        OutputError: the disk is full.
    """
    forget(out, video.key)
    work = _Work(video, out, detector, config)
    try:
        with open_isolated_video(video.path) as reader:
            for view in views(_with_progress(reader, config.fps, advance), detector, config):
                work.take(view)
            work.end_clip()
            work.warnings = [work.named(line) for line in reader.warnings]
    except (InputError, FFmpegError, cv2.error, MemoryError) as error:
        work.end_clip()  # the rest cannot be read; what came before is kept
        work.drop("unreadable", 0.0, 0, work.named(str(error) or type(error).__name__))
    finally:
        work.close()
    write_whole(out / RECORDS / f"{video.key}.json", json.dumps(work.record(), indent=1) + "\n")


def _with_progress(reader: VideoReader, fps: int, advance: Callable[[float, int], None]) -> Iterator[Frame]:
    length = max(float(reader.info.duration_s or 0), 1 / fps)
    for frame in reader:
        yield frame
        time = float(frame.time)
        advance(min(time / length, 1.0), round(time * fps))


class _Work:
    """The clips of one video as its frames come."""

    def __init__(self, video: Video, out: Path, detector: FaceDetector, config: PrepareConfig) -> None:
        self._video, self._out, self._detector, self._config = video, out, detector, config
        self._clips: list[dict[str, Any]] = []
        self._drops: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self._draft: Draft | None = None
        self._temporary = out / CLIPS / f".personalive-{video.key}.tmp"
        self._shot = -1
        self._unseen = 0  # frames without a face since the last one with one
        self._unseen_since = 0.0

    def take(self, view: View) -> None:
        """The next frame of the video."""
        full = self._draft is not None and self._draft.writer.frames >= round(
            self._config.max_clip_s * self._config.fps
        )
        if view.begins or full or not view.face:
            self.end_clip()
        self._shot += view.begins
        if not view.face:
            self._unseen_since = self._unseen_since if self._unseen else float(view.pick.time)
            self._unseen += 1
            return
        self._end_unseen()
        if self._draft is None:
            self._draft = Draft(self._temporary, view, self._detector, self._config)
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
            self.drop(reason, draft.start_s, draft.writer.frames)
            draft.writer.discard()

    def _keep(self, draft: Draft) -> None:
        name = f"{self._video.key}-{len(self._clips):03}"
        video, tensors = clip_files(self._out, name)
        content, facts = draft.finish()
        self._temporary.replace(video)
        write_whole(tensors, content)
        sizes = dict(zip(SIZES, (video.stat().st_size, len(content)), strict=True))
        self._clips.append({"clip": name, "video": self._video.name, "shot": self._shot} | facts | sizes)

    def drop(self, reason: str, start_s: float, frames: int, note: str = "") -> None:
        """Note that something is left out."""
        drop = {"reason": reason, "start_s": round(start_s, 3), "frames": frames}
        self._drops.append(drop | ({"note": note} if note else {}))

    def _end_unseen(self) -> None:
        if self._unseen:
            self.drop("no face", self._unseen_since, self._unseen)
        self._unseen = 0

    def close(self) -> None:
        """Leave nothing half-written behind."""
        if self._draft is not None:
            self._draft.writer.discard()
            self._draft = None

    def record(self) -> dict[str, Any]:
        """Result of the whole video, for its JSON file."""
        self._end_unseen()
        return {
            "video": self._video.name,  # path below the folder of videos
            "fingerprint": self._video.fingerprint,
            "frames": sum(entry["frames"] for entry in (*self._clips, *self._drops)),  # at the set's rate
            "clips": self._clips,
            "drops": self._drops,  # reason, start_s, frames, and perhaps a note
            "warnings": self.warnings,
        }

    def named(self, line: str) -> str:
        """A message without the place of the video on this machine."""
        return line.replace(str(self._video.path), self._video.name)


# --- one clip -----------------------------------------------------------------------------------------------


class Draft:
    """One stretch of a video on its way to become a clip: images go to ``path``, the rest stays in memory."""

    def __init__(self, path: Path, first: View, detector: FaceDetector, config: PrepareConfig) -> None:
        self.writer = ClipWriter(path, config.size_px, config.fps, config.jpeg_quality)
        self._detector, self._config = detector, config
        self._boxes: list[np.ndarray] = []
        self._times: list[float] = []
        self._faces: list[FaceBox] = []
        self._sharpness: list[float] = []
        self._detections = self._seconds = self._repeated = 0
        assert first.square is not None
        self.start_s, self._square = float(first.pick.time), first.square

    def add(self, view: View) -> None:
        """The next frame, which must show the face."""
        boxes = np.full((len(BOX_NAMES), 4), np.nan)
        if self.writer.frames % self._config.detect_every_frames == 0:
            self._detections += 1
            if faces := self._detector.detect(view.image):
                boxes = self._measured(view.image, faces)
        self._boxes.append(boxes)
        self._times.append(float(view.pick.source_time))
        self._repeated += view.pick.repeated
        self.writer.add(view.image)

    def _measured(self, image: np.ndarray, faces: list[FaceBox]) -> np.ndarray:
        first = faces[0]
        self._seconds += len(faces) > 1 and faces[1].side_px >= self._config.second_face_share * first.side_px
        self._faces.append(first)
        self._sharpness.append(sharpness(image, first, self._config.sharpness_side_px))
        return part_boxes(first)

    def verdict(self) -> str | None:
        """None to keep it, else the first reason of ``DROPS`` against it."""
        config = self._config
        if self.writer.frames < round(config.min_clip_s * config.fps):
            return "too short"
        checks = {
            "low frame rate": self._repeated > config.max_repeated_share * self.writer.frames,
            "low resolution": self._square.side_px * config.max_enlargement < config.size_px,
            "face lost": len(self._faces) < config.min_found_share * self._detections,
            "several faces": self._seconds > config.max_second_share * self._detections,
        }
        reason = next((reason for reason, failed in checks.items() if failed), None)
        if reason is None and self._face_share() < config.min_face_share:
            return "face too small"
        if reason is None and float(np.median(self._sharpness)) < config.min_sharpness:
            return "blurred"
        return reason

    def _face_share(self) -> float:
        return float(np.median([face.side_px for face in self._faces])) / self._config.size_px

    def finish(self) -> tuple[bytes, dict[str, Any]]:
        """Close the video; gives the content of the tensor file, and the index entry but for names and sizes."""
        spans, raw, square = self.writer.close(), np.stack(self._boxes), self._square
        boxes = fill_and_smooth(raw, self._config.box_smoothing_frames).clip(0, self._config.size_px)
        detected = all(face.landmarks is not None for face in self._faces)
        facts = {
            "start_s": round(self.start_s, 6),  # in the video
            "frames": self.writer.frames,
            "square": (square.x, square.y, square.side_px),  # what of the video's image is shown, pixels
            "face_share": round(self._face_share(), 4),  # larger side of the face over the square's, median
            "sharpness": round(float(np.median(self._sharpness)), 4),  # median
            "found_share": round(len(self._faces) / self._detections, 4),  # of the detections
            "repeated": self._repeated,  # frames that show the image before
            "landmarks": "detected" if detected else "shares",  # shares: all boxes come from the face box
        }
        found, times = ~np.isnan(raw[:, 0, 0]), np.array(self._times)
        return tensor_bytes(spans=spans, boxes=boxes, found=found, source_s=times), facts


def sharpness(image: np.ndarray, face: FaceBox, side_px: int) -> float:
    """Variance of the Laplacian of the face's brightness over the variance of the brightness itself.

    The face is brought to ``side_px`` first, so that faces of any size can be compared.
    """
    height, width = image.shape[:2]
    left, right = np.clip([face.x, face.x + face.width], 0, width).astype(int)
    top, bottom = np.clip([face.y, face.y + face.height], 0, height).astype(int)
    crop = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    if not crop.size:
        return 0.0
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_AREA if min(grey.shape) >= side_px else cv2.INTER_CUBIC
    grey = cv2.resize(grey, (side_px, side_px), interpolation=method).astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var() / max(float(grey.var()), 1.0))
