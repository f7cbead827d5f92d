"""Defaults of reading and downloading weight files (ours)."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Fetching weights from the Hugging Face hub, a mirror of it, or ModelScope."""

    endpoint: str = "https://huggingface.co"
    chunk_bytes: int = 1 << 20
    max_listing_bytes: int = 8 << 20  # of a repository at ModelScope
    timeout_s: float = 30.0  # without a single byte, or for one reply about a repository
    retries: int = 5  # reconnections in a row that brought nothing before giving up
    retry_pause_s: float = 2.0
    report_interval_s: float = 0.2  # least time between two progress reports on one file
