"""Cache folder of prepared programs: made once, found again, the oldest removed. All of it can be made anew."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

import personalive
from personalive.config import CACHE_ENV, default_cache_folder
from personalive.errors import OutputError

Found = TypeVar("Found")
_LOG = logging.getLogger(__name__)
_CHOICES = "choices.json"
_PARTIAL = ".partial"
_CODE = ("models", "runtime", "engine/backend.py")  # what programs are made from


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Limits of the cache (ours)."""

    kept_programs: int = 6  # folders; those used longest ago go first
    leftover_s: float = 86_400.0  # age at which what is half made is given up
    kept_choices: int = 50  # of "auto", the newest


@cache
def _writable(folder: Path) -> Path:
    """The folder itself, or a private one that goes with this process where that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        private = Path(tempfile.mkdtemp(prefix="personalive-cache-"))
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        reason = error.strerror or str(error)
        _LOG.warning(
            "%s: prepared programs cannot be kept there (%s): they are made anew each time, until %s names a folder",
            folder,
            reason,
            CACHE_ENV,
        )
        return private


class ProgramCache:
    """One user's programs and choices, by key. Several processes may use it at once."""

    def __init__(self, root: Path | None = None, config: CacheConfig | None = None) -> None:
        self.root = root or _writable(default_cache_folder())
        self._config = config or CacheConfig()

    def folder(self, key: str, make: Callable[[Path], None]) -> Path:
        """The folder of ``key``; ``make`` fills it where there is none. It appears whole or not at all.

        Raises:
            OutputError: the disk refuses.
        """
        target = self.root / key
        try:
            if not target.is_dir():
                self._make(target, make)
            os.utime(target)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(
                f"{self.root}: prepared programs cannot be kept there ({reason}): free some space, name another "
                f"folder in {CACHE_ENV}, or use --backend eager"
            ) from error
        return target

    def read(self, key: str, *, make: Callable[[Path], None], read: Callable[[Path], Found]) -> Found:
        """Result of ``read`` on the folder of ``key``; a folder that it cannot read is made anew, once.

        Raises:
            OutputError: the disk refuses.
            Exception: whatever ``read`` raises of a new folder.
        """
        known = (self.root / key).is_dir()
        folder = self.folder(key, make)
        try:
            return read(folder)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a damaged file makes a reader raise whatever it likes
            if not known:
                raise
        shutil.rmtree(folder, ignore_errors=True)
        return read(self.folder(key, make))

    def get(self, key: str) -> dict[str, Any] | None:
        """Small value kept under ``key``; None where none is, or the file is damaged."""
        value = self._choices().get(key)
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a small value; a disk that refuses costs no more than measuring it again."""
        with suppress(OSError):
            found = self._choices()
            self.root.mkdir(parents=True, exist_ok=True)
            kept = [*((k, v) for k, v in found.items() if k != key), (key, dict(value))][-self._config.kept_choices :]
            temporary = self.root / f".{uuid.uuid4().hex}{_PARTIAL}"
            temporary.write_text(json.dumps(dict(kept), indent=2) + "\n", encoding="utf-8")
            temporary.replace(self.root / _CHOICES)

    def _choices(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads((self.root / _CHOICES).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def _make(self, target: Path, make: Callable[[Path], None]) -> None:
        temporary = self.root / f".{uuid.uuid4().hex}{_PARTIAL}"
        temporary.mkdir(parents=True)
        try:
            make(temporary)
            with suppress(OSError):  # another process was faster
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._remove_leftovers()
        kept = sorted(
            (p for p in self.root.iterdir() if p.is_dir() and not p.name.startswith(".")),
            key=lambda p: p.stat().st_mtime,
            reverse=True,
        )
        for old in [p for p in kept if p != target][self._config.kept_programs - 1 :]:
            shutil.rmtree(old, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove half-made folders of killed processes; a younger one may still be at work."""
        for path in self.root.glob(f".*{_PARTIAL}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > self._config.leftover_s:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def program_key(name: str, *packages: str, **facts: object) -> str:
    """A folder name that changes with everything a program depends on: facts, versions of packages, our code."""
    known = {"code": _code_digest(), **facts, **{package: version(package) for package in packages}}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()
    return f"{name}-{digest[:20]}"


@cache
def _code_digest() -> str:
    root = Path(personalive.__file__).parent
    digest = hashlib.sha256()
    for place in _CODE:
        for path in sorted((root / place).glob("*.py")) if (root / place).is_dir() else [root / place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()
