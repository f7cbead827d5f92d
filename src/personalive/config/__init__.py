"""Every default, once, with its unit and source.

Sources: "paper" is the PersonaLive paper (CVPR 2026); "weights" is a fact of the released checkpoints;
"ours" is a choice of this project. Model sizes given here are those of the released checkpoints; a folder
with ``personalive/config.json`` overrides them (the bundled small model does).
"""

from __future__ import annotations

from personalive.config.backends import BACKEND_ENV, CACHE_ENV, BackendConfig, default_cache_folder
from personalive.config.commands import CliConfig, ContactSheetConfig, FilmSizeConfig
from personalive.config.data import EvaluationConfig, PartBoxConfig, PrepareConfig
from personalive.config.files import (
    FACE_DETECTOR,
    TAESD,
    TINY,
    WEIGHTS_ENV,
    DownloadConfig,
    TemplateConfig,
    WeightFilesConfig,
    default_decoder_folder,
    default_metrics_folder,
    default_weights_folder,
)
from personalive.config.live import ControlLimits, DirectionConfig, LiveConfig, OutletConfig, ServerConfig
from personalive.config.memory import FULL, PRESETS, RELEASED_VALUES, MemoryPreset
from personalive.config.model import (
    CanvasConfig,
    DetailConfig,
    EntryType,
    HeadProxyConfig,
    KeyframeConfig,
    ModelConfig,
    MotionEncoderConfig,
    MotionExtractorConfig,
    PoseGuiderConfig,
    PredictionType,
    ScheduleConfig,
)
from personalive.config.pictures import FramingConfig, HaarConfig, MediaConfig

__all__ = [
    "BACKEND_ENV",
    "CACHE_ENV",
    "FACE_DETECTOR",
    "FULL",
    "PRESETS",
    "RELEASED_VALUES",
    "TAESD",
    "TINY",
    "WEIGHTS_ENV",
    "BackendConfig",
    "CanvasConfig",
    "CliConfig",
    "ContactSheetConfig",
    "ControlLimits",
    "DetailConfig",
    "DirectionConfig",
    "DownloadConfig",
    "EntryType",
    "EvaluationConfig",
    "FilmSizeConfig",
    "FramingConfig",
    "HaarConfig",
    "HeadProxyConfig",
    "KeyframeConfig",
    "LiveConfig",
    "MediaConfig",
    "MemoryPreset",
    "ModelConfig",
    "MotionEncoderConfig",
    "MotionExtractorConfig",
    "OutletConfig",
    "PartBoxConfig",
    "PoseGuiderConfig",
    "PredictionType",
    "PrepareConfig",
    "ScheduleConfig",
    "ServerConfig",
    "TemplateConfig",
    "WeightFilesConfig",
    "default_cache_folder",
    "default_decoder_folder",
    "default_metrics_folder",
    "default_weights_folder",
]
