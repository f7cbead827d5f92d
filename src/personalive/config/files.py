"""Weight files: reading, fetching, and where they live (ours unless stated)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WeightFilesConfig:
    """Reading and naming weight files."""

    max_config_bytes: int = 1 << 20  # a larger config.json is refused unread
    read_at_once_bytes: int = 256 << 20  # of a file in main memory beside what is loaded: 2 % of the released weights
    keys_shown: int = 3  # keys of each kind named in an error line; the rest is counted
    identity_samples: int = 16  # places of a large file that enter its identity
    identity_sample_bytes: int = 1 << 20  # bytes read at each; files up to the product are read whole


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Fetching weights from the Hugging Face hub or a mirror of it."""

    endpoint: str = "https://huggingface.co"
    chunk_bytes: int = 1 << 20
    timeout_s: float = 30.0  # without a single byte, or for one reply about a repository
    retries: int = 5  # reconnections in a row that brought nothing before giving up
    retry_pause_s: float = 2.0
    report_interval_s: float = 0.2  # least time between two progress reports on one file


@dataclass(frozen=True, kw_only=True)
class TemplateConfig:
    """What a motion template may hold: files come from strangers too."""

    max_bytes: int = 200_000_000  # 57 minutes at 25 fps of the released model's motion
    max_header_bytes: int = 16_384  # ours need 800
    max_frames: int = 100_000
    max_seconds: float = 86_400.0
    max_clock_hz: int = 1_000_000_000  # finest time base: nanoseconds
    max_magnitude: float = 10_000.0  # of any number in it: float16 ends at 65,504


TINY = "tiny"  # the name of the bundled model wherever a weights folder is asked for
TAESD = "taesd"  # the name of the small decoder that can be downloaded, wherever a decoder's folder is asked for
FACE_DETECTOR = "face_detection_yunet/face_detection_yunet_2023mar.onnx"  # YuNet, inside the weights folder
WEIGHTS_ENV = "PERSONALIVE_WEIGHTS"  # environment variable that names the weights folder


def default_weights_folder() -> Path:
    """Where `personalive weights download` puts the weights unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "personalive" / "weights"


def default_decoder_folder() -> Path:
    """Where `personalive weights download --decoder taesd` puts it unless told otherwise."""
    return default_weights_folder().with_name(TAESD)


def default_metrics_folder() -> Path:
    """Where `personalive evaluate` looks for the networks of LPIPS, ID-SIM and the like unless told otherwise."""
    return default_weights_folder().with_name("metrics")
