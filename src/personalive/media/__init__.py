"""Images, video and sound in and out: any length, constant memory, exact times."""

from personalive.media.audio import AudioCut
from personalive.media.isolated import load_isolated_still, open_isolated_video
from personalive.media.paths import check_input, check_output
from personalive.media.reader import Frame, VideoInfo, VideoReader, open_video
from personalive.media.still import is_still, load_still, save_png
from personalive.media.writer import VideoWriter

__all__ = [
    "AudioCut",
    "Frame",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "check_input",
    "check_output",
    "is_still",
    "load_isolated_still",
    "load_still",
    "open_isolated_video",
    "open_video",
    "save_png",
]
