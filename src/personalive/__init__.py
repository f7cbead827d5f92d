"""PersonaLive: one portrait and one driving face become an endless video of that portrait performing.

    import personalive
    engine = personalive.load_engine("tiny")
    personalive.animate("portrait.png", "driving.mp4", "video.mp4", engine=engine)

Names are imported when first used, because torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personalive.engine.engine import Engine
    from personalive.engine.state import StreamState
    from personalive.errors import (
        CheckpointError,
        DeviceError,
        DownloadError,
        FaceNotFoundError,
        InputError,
        OutputError,
        PersonaLiveError,
        TrainingError,
    )
    from personalive.offline.animate import animate
    from personalive.offline.options import AnimateOptions, AnimateReport
    from personalive.progress import Progress
    from personalive.runtime.load import load_engine

__version__ = "0.1.0"

_HOMES = {
    "CheckpointError": "personalive.errors",
    "DeviceError": "personalive.errors",
    "DownloadError": "personalive.errors",
    "FaceNotFoundError": "personalive.errors",
    "InputError": "personalive.errors",
    "OutputError": "personalive.errors",
    "PersonaLiveError": "personalive.errors",
    "TrainingError": "personalive.errors",
    "AnimateOptions": "personalive.offline.options",
    "AnimateReport": "personalive.offline.options",
    "Progress": "personalive.progress",
    "animate": "personalive.offline.animate",
    "Engine": "personalive.engine.engine",
    "StreamState": "personalive.engine.state",
    "load_engine": "personalive.runtime.load",
}

__all__ = [
    "AnimateOptions",
    "AnimateReport",
    "CheckpointError",
    "DeviceError",
    "DownloadError",
    "Engine",
    "FaceNotFoundError",
    "InputError",
    "OutputError",
    "PersonaLiveError",
    "Progress",
    "StreamState",
    "TrainingError",
    "__version__",
    "animate",
    "load_engine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'personalive' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
