"""``personalive doctor``: findings about this machine, and the next step."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import typer

from personalive import __version__
from personalive.cli.animate import demo_files
from personalive.cli.console import one_line, show_rows, size
from personalive.config import TINY
from personalive.errors import PersonaLiveError

EPILOG = """
\b
Exit codes: 0 when the released weights or the bundled model can run, else 1.
"""


class State(StrEnum):
    """Meaning of a finding for the user."""

    ok = "ok"
    note = "note"  # works, but less than it could be
    missing = "missing"


@dataclass(frozen=True)
class Finding:
    """Line of the table."""

    topic: str
    state: State
    found: str


def doctor() -> None:
    """Check this machine: what is installed, what can run, and the next step."""
    findings = examine()
    _show(findings)
    able = {finding.topic for finding in findings if finding.state is not State.missing}
    steps, can_run = advise(able)
    print()
    for step in steps:
        print(step)
    if not can_run:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Run all probes; one that fails is a finding too."""
    logging.disable(logging.WARNING)  # the findings say it
    try:
        return [_try(topic, probe) for topic, probe in _PROBES.items()]
    finally:
        logging.disable(logging.NOTSET)


def advise(able: set[str]) -> tuple[list[str], bool]:
    """Next steps, line by line, and True if anything can run.

    Args:
        able: topics of which nothing is missing.
    """
    broken = [topic for topic in ("torch", "device", "face detector", "video encoder") if topic not in able]
    if broken:
        return [f"nothing can run: {' and '.join(broken)} missing or broken: reinstall personalive"], False
    steps = []
    if able & {"released weights", "bundled model"}:
        steps.append("your photo:   personalive animate PORTRAIT DRIVING -o video.mp4")
    if "released weights" not in able:
        steps.append("a step up:    personalive weights download   (12 GB, academic research only, for a GPU)")
    if {"bundled model", "demo files"} <= able:
        steps.append("demo:         personalive animate --demo")
    return steps, bool(able & {"released weights", "bundled model"})


def _try(topic: str, probe: Callable[[], tuple[State, str]]) -> Finding:
    try:
        state, found = probe()
    except PersonaLiveError as error:
        return Finding(topic, State.missing, str(error))
    except Exception as error:  # noqa: BLE001 (whatever is broken here is what the user wants to know)
        return Finding(topic, State.missing, one_line(f"{type(error).__name__}: {error}"))
    return Finding(topic, state, found)


def _show(findings: list[Finding]) -> None:
    """A coloured table on a terminal; elsewhere plain lines that nothing wraps."""
    if not sys.stdout.isatty():
        show_rows([(finding.topic, f"{finding.state:<7}  {finding.found}") for finding in findings])
        return
    from rich.console import Console  # noqa: PLC0415 (keeps --help fast)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    styles = {State.ok: "green", State.note: "yellow", State.missing: "red"}
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.topic, Text(finding.state.value, styles[finding.state]), Text(finding.found))
    Console(highlight=False).print(table)


# --- probes: each returns what is there, or raises -----------------------------------------------------------------


def _version() -> tuple[State, str]:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return State.ok, f"{__version__}, {python}, {sys.executable}"


def _torch() -> tuple[State, str]:
    import torch  # noqa: PLC0415 (takes seconds)

    from personalive.device import cpu_only_build_hint  # noqa: PLC0415

    if (hint := cpu_only_build_hint()) is not None:
        return State.note, f"{torch.__version__}: {hint}"
    return State.ok, f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"


def _device() -> tuple[State, str]:
    import torch  # noqa: PLC0415

    from personalive.runtime.load import AUTO, choose_device, choose_dtype  # noqa: PLC0415

    device = choose_device(AUTO)
    dtype = str(choose_dtype(AUTO, device)).removeprefix("torch.")
    if device.type == "cuda":
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = ", ".join(f"cuda:{i} {card.name} {size(card.total_memory)}" for i, card in enumerate(cards))
        return State.ok, f"{names}; auto takes {device} in {dtype}"
    if device.type == "mps":
        return State.ok, f"Apple GPU; auto takes {device} in {dtype}"
    return State.note, f"no GPU; auto takes cpu in {dtype}: the released weights will be far from real time"


def _cpu() -> tuple[State, str]:
    import torch  # noqa: PLC0415

    from personalive.runtime.load import choose_dtype  # noqa: PLC0415

    native = choose_dtype("auto", torch.device("cpu")) is torch.bfloat16
    dtypes = "float32 and bfloat16" if native else "float32 (no AMX for bfloat16)"
    level = torch.backends.cpu.get_cpu_capability()
    return State.ok, f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used, {level}; computes in {dtypes}"


def _backends() -> tuple[State, str]:
    import torch  # noqa: PLC0415

    from personalive.runtime.load import AUTO, choose_device, choose_dtype  # noqa: PLC0415
    from personalive.runtime.registry import BACKENDS, default_precision, unavailable  # noqa: PLC0415

    device = choose_device(AUTO)
    precision = choose_dtype(AUTO, device)
    reasons = {
        name: unavailable(name, torch.device(device), default_precision(name, device, precision)) for name in BACKENDS
    }
    usable = [name for name, reason in reasons.items() if reason is None]
    rest = "; ".join(f"no {name}: {reason}" for name, reason in reasons.items() if reason is not None)
    auto = "takes the fastest, measured once per model" if device.type == "cpu" else "takes eager"
    never = "" if reasons["tensorrt"] else "; tensorrt was never run by this project"
    return State.ok, f"{', '.join(usable)}; auto {auto}{never}" + (f" ({rest})" if rest else "")


def _memory() -> tuple[State, str]:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return State.note, "not known on this system"
    return State.ok, f"{size(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))} in this machine"


def _faces() -> tuple[State, str]:
    from personalive.checkpoints.folder import resolve_root  # noqa: PLC0415
    from personalive.runtime.load import find_weights  # noqa: PLC0415
    from personalive.vision.faces import find_detector  # noqa: PLC0415

    try:
        folder = resolve_root(find_weights())
    except PersonaLiveError:
        folder = None
    if find_detector(folder).name == "yunet":
        return State.ok, f"YuNet from {folder}"
    return State.note, "OpenCV's Haar cascades: frontal faces only; YuNet comes with the released weights"


def _encoder() -> tuple[State, str]:
    import av  # noqa: PLC0415

    for name in ("libx264", "aac"):
        av.Codec(name, "w")
    return State.ok, f"H.264 (libx264) and AAC, in PyAV {av.__version__}"


def _released() -> tuple[State, str]:
    from personalive.checkpoints.folder import CheckpointFolder  # noqa: PLC0415
    from personalive.runtime.load import find_weights  # noqa: PLC0415

    folder = CheckpointFolder.open(find_weights())
    return State.ok, f"{folder.root}, {size(folder.size_bytes)}; `personalive weights check` checks every file"


def _tiny() -> tuple[State, str]:
    from personalive.checkpoints.folder import CheckpointFolder  # noqa: PLC0415

    folder = CheckpointFolder.open(TINY)
    return State.ok, f"{folder.config.image_size_px} px, {size(folder.size_bytes)}; knows synthetic heads only"


def _photo() -> tuple[State, str]:
    from personalive.runtime.face import load_face_engine  # noqa: PLC0415

    return State.ok, f"{load_face_engine().image_size} px, no diffusion; for photographs of people"


def _demo() -> tuple[State, str]:
    portrait, driving = demo_files()
    demo_files(synthetic=True)
    return State.ok, f"{portrait.name} and {driving.name} in {driving.parents[1]}"


_PROBES: dict[str, Callable[[], tuple[State, str]]] = {
    "personalive": _version,
    "torch": _torch,
    "device": _device,
    "cpu": _cpu,
    "backends": _backends,
    "memory": _memory,
    "face detector": _faces,
    "video encoder": _encoder,
    "released weights": _released,
    "bundled model": _photo,
    "tiny model": _tiny,
    "demo files": _demo,
}
