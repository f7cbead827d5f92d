"""Report of kept and dropped clips, for people (Markdown, an image) and for programs (JSON)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from personalive.media.paths import write_whole
from personalive.media.still import save_png
from personalive.offline.config import ContactSheetConfig
from personalive.training.data.prepare.clip_file import SIZES, clip_files, read_image, read_tensors
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.video import DROPS
from personalive.vision.resize import Square, crop_and_resize

REPORT_FILE, REPORT_DATA_FILE, SHEET_FILE = "report.md", "report.json", "contact_sheet.png"
_SHEET_ROWS, _LABEL_PX = 16, 22
_BOX_COLOURS = ((255, 255, 255), (80, 200, 255), (80, 200, 255), (255, 160, 60))  # of ``BOX_NAMES``
RIGHTS = (
    "You must have the right to use these videos for training, and the consent of the people in them; preparing a "
    "video changes neither."
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole set in numbers."""

    videos: int
    videos_kept: int  # that gave at least one clip
    clips: int
    frames: int  # in the clips
    hours: float  # of clips
    bytes: int  # of the clips
    dropped: dict[str, dict[str, int]]  # reason to its number of places and frames
    other_files: int  # in the folder of videos that are no videos
    warnings: list[str]

    def told_drops(self) -> str:
        """``3 too short, 1 unreadable``; ``nothing dropped``."""
        reasons = [f"{counts['places']} {reason}" for reason, counts in self.dropped.items()]
        return ", ".join(reasons) or "nothing dropped"


def write_report(out: Path, config: PrepareConfig, records: list[dict[str, Any]], others: int) -> Report:
    """Write ``report.md``, ``report.json`` and ``contact_sheet.png`` into the set.

    Raises:
        OutputError: they cannot be written.
    """
    clips = [clip for record in records for clip in record["clips"]]
    frames = sum(clip["frames"] for clip in clips)
    report = Report(
        videos=len(records),
        videos_kept=sum(bool(record["clips"]) for record in records),
        clips=len(clips),
        frames=frames,
        hours=round(frames / config.fps / 3600, 4),
        bytes=sum(clip[size] for clip in clips for size in SIZES),
        dropped=_counted(records),
        other_files=others,
        warnings=[line for record in records for line in record["warnings"]],
    )
    if clips:
        save_png(out / SHEET_FILE, contact_sheet(out, clips))
    else:
        (out / SHEET_FILE).unlink(missing_ok=True)
    data = {"settings": config.settings, "set": asdict(report), "videos": records}
    write_whole(out / REPORT_DATA_FILE, json.dumps(data, indent=1) + "\n")
    write_whole(out / REPORT_FILE, _markdown(config, report, records))
    return report


def _counted(records: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    places, frames = Counter[str](), Counter[str]()
    for record in records:
        for drop in record["drops"]:
            places[drop["reason"]] += 1
            frames[drop["reason"]] += drop["frames"]
    return {reason: {"places": places[reason], "frames": frames[reason]} for reason in DROPS if places[reason]}


# --- for people ---------------------------------------------------------------------------------------------


def _markdown(config: PrepareConfig, report: Report, records: list[dict[str, Any]]) -> str:
    drops = [(reason, *counts.values(), DROPS[reason]) for reason, counts in report.dropped.items()]
    lines = [
        "# Training set",
        "",
        f"{report.clips} clips from {report.videos_kept} of {report.videos} videos: {report.frames} frames, "
        f"{report.frames / config.fps / 60:.1f} minutes at {config.fps} fps, {config.size_px} px, "
        f"{report.bytes / 1e6:.1f} MB. Faces by {config.detector}.",
        f"{report.other_files} other files were left alone.",
        "",
        RIGHTS,
        "",
        f"Some of the clips, with their boxes: [{SHEET_FILE}]({SHEET_FILE}).",
        "",
        "## Dropped",
        "",
        *_table(("reason", "places", "frames", "what it means"), drops),
        "",
        "## Videos",
        "",
        *_table(("video", "frames", "clips", "kept frames", "dropped"), map(_video_row, records)),
    ]
    notes = [f"- {_cell(drop['note'])}" for r in records for drop in r["drops"] if "note" in drop]
    notes += [f"- {_cell(line)}" for line in report.warnings]
    return "\n".join([*lines, *(["", "## Remarks", "", *notes] if notes else [])]) + "\n"


def _video_row(record: dict[str, Any]) -> tuple[Any, ...]:
    kept = sum(clip["frames"] for clip in record["clips"])
    reasons = Counter(drop["reason"] for drop in record["drops"])
    dropped = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return record["video"], record["frames"], len(record["clips"]), kept, dropped


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    made = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *made] if made else ["Nothing."]


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


# --- the image --------------------------------------------------------------------------------------------


def contact_sheet(out: Path, clips: list[dict[str, Any]]) -> np.ndarray:
    """(H, W, 3) uint8: a row per clip, evenly chosen where there are many, with the boxes drawn in."""
    chosen = np.linspace(0, len(clips) - 1, min(len(clips), _SHEET_ROWS)).round().astype(int)
    return np.concatenate([_row(out, clips[index]) for index in chosen])


def _row(out: Path, clip: dict[str, Any]) -> np.ndarray:
    video, tensors = clip_files(out, clip["clip"])
    content, config = read_tensors(tensors, clip["frames"]), ContactSheetConfig()
    step = config.cell_px + config.gap_px
    row = np.full((step + _LABEL_PX, config.columns * step + config.gap_px, 3), config.background_grey, np.uint8)
    label = f"{clip['clip']}  {clip['start_s']:.2f} s, {clip['frames']} frames, boxes {clip['landmarks']}"
    cv2.putText(row, label, (config.gap_px, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    moments = np.linspace(0, clip["frames"] - 1, config.columns).round().astype(int)
    for column, moment in enumerate(moments):
        image = read_image(video, content["spans"][moment])
        cell = crop_and_resize(image, Square(0, 0, len(image)), config.cell_px)
        boxes = content["boxes"][moment] * (config.cell_px / len(image))
        for (left, top, right, bottom), colour in zip(boxes.round().astype(int), _BOX_COLOURS, strict=True):
            cv2.rectangle(cell, (left, top), (right, bottom), colour, 1)
        x = config.gap_px + column * step
        row[_LABEL_PX : _LABEL_PX + config.cell_px, x : x + config.cell_px] = cell
    return row
