"""A process that decodes one file of others, and the messages between it and the one that asks.

It reads one request and runs the function that answers it, until the pipe to it is closed: lines of JSON, and bytes
of packets. A frame that takes too long ends it by SIGALRM, whose default action needs no help from Python: also where
a decoder never returns or nobody waits any more.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from personalive.errors import InputError, PersonaLiveError
from personalive.media.config import MediaConfig
from personalive.media.paths import convert_hint, reason

_COMMAND = "from personalive.media.worker import main; main()"
_IN_BACKGROUND = "import os; os.nice(5); "  # before the imports, which take most of the time of a still
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # nothing here multiplies matrices, and more take half the time to start
NEXT, REWIND = b"n", b"r"  # commands: one more frame may come; start over


class Worker:
    """The process, and messages to and from it."""

    def __init__(
        self,
        task: str,
        path: Path,
        config: MediaConfig,
        descriptor: int | None,
        *,
        background: bool = False,
        **request: str | None,
    ) -> None:
        """
        Args:
            task: MODULE:FUNCTION that answers, given a ``Link``.
            path: the file.
            descriptor: a file of this process that the other one gets too.
            background: leave the processor to others, such as live sessions, while they want it.
            request: what else the function wants to know.
        """
        self._path, self._config = path, config
        self._process = subprocess.Popen(
            # "-P": a module of the current folder is never taken for one of ours.
            [sys.executable, "-P", "-W", "ignore", "-c", _IN_BACKGROUND * background + _COMMAND, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **_ONE_THREAD},
            pass_fds=() if descriptor is None else (descriptor,),
            # Ctrl-C and a closed terminal are this process's to answer. In a session of its own, which Linux weighs
            # as one, it could not be nice to this process.
            process_group=0,
        )
        self._end = weakref.finalize(self, _end, self._process)  # also of one that is forgotten
        request["path"] = str(path)
        line = json.dumps(request | {"descriptor": descriptor, "config": asdict(config)})
        self.send(line.encode() + b"\n")

    def send(self, command: bytes) -> None:
        """Send a command; a process that is gone is noticed when the answer does not come."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(command)
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Next message.

        Raises:
            InputError: it says so, or the process has ended.
        """
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except ValueError:  # closed by another thread
            line = b""
        if not line.endswith(b"\n"):
            raise InputError(self._cause_of_death())
        message = json.loads(line)
        if "error" in message:
            raise InputError(message["error"])
        return message

    def receive_bytes(self, count: int) -> bytes:
        """``count`` bytes that follow a message.

        Raises:
            InputError: the process has ended.
        """
        assert self._process.stdout is not None
        content = self._process.stdout.read(count)
        if len(content) < count:
            raise InputError(self._cause_of_death())
        return content

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGALRM:
            limit_s = self._config.decoder_frame_s
            return f"{self._path}: a frame of it took more than {limit_s:g} s to decode; {convert_hint(self._path)}"
        name = "a fault" if code >= 0 else signal.Signals(-code).name
        return f"{self._path}: the decoder ends in {name} at this file; {convert_hint(self._path)}"

    def kill(self) -> None:
        """End the process; reads of it end too."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of its pipes."""
        self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(OSError):
            pipe.close()


# --- in the process -----------------------------------------------------------------------------------------


class RewindError(Exception):
    """The reader asks for the first frame again."""


class Link:
    """Pipes to the process that asked."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests, self._answers = requests, answers
        self.request = json.loads(requests.readline())
        self.path = Path(self.request["path"])
        self.config = MediaConfig(**self.request["config"])

    def send(self, message: dict[str, Any], content: bytes = b"") -> None:
        """Send a message and the bytes that follow it; the clock of the next frame stands meanwhile."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._answers.write(json.dumps(message).encode() + b"\n" + content)
        self._answers.flush()
        self.on_progress()

    def wait_for_slot(self) -> None:
        """Wait until a slot is free.

        Raises:
            RewindError: the reader starts over instead.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        command = self._requests.read(1)
        if command == REWIND:
            raise RewindError
        if command != NEXT:
            os._exit(0)
        self.on_progress()

    def on_progress(self) -> None:
        """Start the clock of the next frame."""
        signal.setitimer(signal.ITIMER_REAL, self.config.decoder_frame_s)

    def time(self, name: str) -> Fraction | None:
        """A time of the request in seconds."""
        return None if self.request[name] is None else Fraction(self.request[name])


def main() -> None:
    """Answer the request on standard input."""
    # Nothing that a library prints may come between the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    link = Link(os.fdopen(0, "rb"), answers)
    module, _, function = sys.argv[1].partition(":")
    answer = getattr(import_module(module), function)
    _limit(link.config, int(link.request.get("written_bytes", 0)))
    try:
        answer(link)
    except PersonaLiveError as error:
        link.send({"error": str(error)})
    except MemoryError:
        limit = f"{link.config.decoder_memory_bytes / 1e9:g} GB of memory"
        link.send({"error": f"{link.path}: wants more than {limit} to decode; {convert_hint(link.path)}"})
    except BrokenPipeError:
        pass
    except Exception as error:  # noqa: BLE001 (whatever a library raises is about this file)
        cause = f"{type(error).__name__}: {reason(error)}"
        link.send({"error": f"{link.path}: cannot be decoded ({cause}); {convert_hint(link.path)}"})
    os._exit(0)  # without the destructors of libraries, which a damaged heap may end in a fault


def _limit(config: MediaConfig, written_bytes: int) -> None:
    import resource  # noqa: PLC0415 (POSIX only)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    for kind, limit in (("DATA", config.decoder_memory_bytes), ("CORE", 0), ("FSIZE", written_bytes)):
        _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (most, most))
