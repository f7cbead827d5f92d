"""The measures, each a pure function of pictures, features, parameters or time stamps."""

from personalive.evaluation.metrics.features import frechet_distance, id_sim, parameter_distance, tlp
from personalive.evaluation.metrics.pictures import colour_distance, flicker, l1, psnr, ssim
from personalive.evaluation.metrics.series import (
    correlation,
    drift,
    fps,
    inter_chunk_latency_ms,
    motion_to_photon_ms,
    percentiles,
)

__all__ = [
    "colour_distance",
    "correlation",
    "drift",
    "flicker",
    "fps",
    "frechet_distance",
    "id_sim",
    "inter_chunk_latency_ms",
    "l1",
    "motion_to_photon_ms",
    "parameter_distance",
    "percentiles",
    "psnr",
    "ssim",
    "tlp",
]
