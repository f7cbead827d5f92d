"""Checks of input and output paths, made before any work is done, and files that appear when they are whole."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from personalive.errors import InputError, OutputError

_SAMPLE_BYTES = 1 << 20  # from the beginning and from the end of a file, to tell whether it has changed


def check_input(path: str | os.PathLike[str]) -> Path:
    """``path`` as a readable, non-empty, regular file.

    Raises:
        InputError: it is missing, empty, a folder, a device or not readable.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path}: is a folder; give one image or clip inside it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is not an ordinary file; save the image or clip to disk first")
        if status.st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes); copy or download it again")
        with path.open("rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file; check the name and the folder") from None
    except PermissionError:
        raise InputError(f"{path}: may not be read; change its permissions or copy it elsewhere") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path!s}: cannot be opened ({reason(error)}); check the name") from None
    return path


def check_output(
    path: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    suffix: str = ".mp4",
) -> Path:
    """The file that writing to ``path`` will replace, links followed. Creates nothing that stays.

    Args:
        path: where the result should go. Its folder must exist; an ordinary file there will be replaced.
        inputs: files that must survive, compared by identity so that links do not deceive.
        suffix: the ending the name must have, in any case.

    Raises:
        OutputError: the result could not be written there.
    """
    path = Path(path)
    try:
        target = path.resolve()
        _check_target(path, target, suffix)
        if target.exists():
            for source in map(Path, inputs):
                if source.exists() and target.samefile(source):
                    raise OutputError(f"{path}: is also an input ({source}); choose another output name")
        _check_folder(path, target.parent)
    except (OSError, ValueError, RuntimeError) as error:
        raise OutputError(f"{path!s}: cannot be written ({reason(error)}); choose another name") from None
    return target


def _check_target(path: Path, target: Path, suffix: str) -> None:
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; add a file name, such as {path / ('out' + suffix)}")
    if path.suffix.lower() != suffix:
        raise OutputError(f"{path}: should end in {suffix}; name it {path.with_suffix(suffix).name}")
    if target.exists() and not target.is_file():
        raise OutputError(f"{path}: is not an ordinary file; choose another output name")


def _check_folder(path: Path, folder: Path) -> None:
    if not folder.exists():
        raise OutputError(f"{path}: the folder {folder} does not exist; create it or choose another")
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is a file, not a folder; choose another output name")
    try:
        # Asking for permission bits lies for administrators and read-only disks; a trial does not.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: nothing can be written in {folder} ({reason(error)}); choose another folder"
        ) from None


def temporary_beside(target: Path) -> Path:
    """A new hidden name in the folder of ``target``, so that the final rename is atomic."""
    return target.with_name(f".personalive-{secrets.token_hex(6)}.tmp")


def partial_beside(target: Path) -> Path:
    """``out.mp4`` -> ``out.partial.mp4``, or ``out.partial-2.mp4`` and so on where that is taken."""
    candidate = target.with_suffix(f".partial{target.suffix}")
    count = 2
    while candidate.exists():
        candidate = target.with_suffix(f".partial-{count}{target.suffix}")
        count += 1
    return candidate


def remove(path: Path) -> None:
    """Delete ``path`` if it is there; a file that cannot be deleted is left."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Put ``content`` at ``path`` all at once, surviving a power cut; an older file stays until then.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({reason(error)}); free some space") from None
    finally:
        remove(temporary)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds ``folder`` against a second command at the same time, where the system can.

    Raises:
        OutputError: another one is at work there.
    """
    try:
        import fcntl  # noqa: PLC0415 (not on Windows)
    except ImportError:
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be opened ({error.strerror}); choose another name") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutputError(f"{folder}: another command is at work there; wait for it or choose another name") from None
    except OSError:
        pass  # a file system that has no locks
    try:
        yield
    finally:
        os.close(descriptor)


def sample_digest(path: Path) -> str:
    """16 hex digits of a file's size, beginning and end: quick for files of any size.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
        file.seek(max(size - _SAMPLE_BYTES, 0))
        return hashlib.sha256(head + file.read(_SAMPLE_BYTES) + str(size).encode()).hexdigest()[:16]


def convert_hint(path: Path, options: str = "") -> str:
    """The command that makes an ordinary file of an unusual one."""
    command = ["ffmpeg -i", shlex.quote(path.name), options, "converted.mp4"]
    return f"convert it first: {' '.join(filter(None, command))}"


def reason(error: BaseException) -> str:
    """The short cause in an operating system or codec error, on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
