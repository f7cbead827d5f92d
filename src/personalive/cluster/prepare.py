"""Training sets on a cluster: the videos of ``prepare``, each by whatever actor is free."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2

from personalive.cluster.tasks import ClusterOptions, Running, actor_pool
from personalive.cluster.tasks import Job as ActorJob
from personalive.errors import DeviceError, InputError
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.folder import Video
from personalive.training.data.prepare.runner import Job, Meter
from personalive.training.data.prepare.video import prepare_video
from personalive.vision.config import FramingConfig
from personalive.vision.faces import find_detector


def prepare_on_cluster(cluster: ClusterOptions, job: Job, meter: Meter) -> None:
    """Do ``job`` for every video: with its first argument given, ``elsewhere`` of ``prepare``.

    Raises:
        PersonaLiveError: there is no such cluster, its machines lack the detector, or one video ended every process.
    """

    def show(running: Running) -> None:
        for index, now in running.items():
            if now is not None:
                job.shares[index], job.frames[index] = now
        meter.tell()

    with actor_pool(partial(_job, job.out, job.config, job.detector_folder), cluster) as pool:
        for index, result in pool.run(job.todo, show):
            if isinstance(result, DeviceError):
                raise DeviceError(f"{job.todo[index].name}: {result}")
            job.shares[index] = 1.0
            meter.finish()


def _job(out: Path, config: PrepareConfig, detector_folder: Path | None) -> ActorJob:
    cv2.setNumThreads(1)  # results must not depend on their number
    detector = find_detector(detector_folder, FramingConfig())
    if detector.name != config.detector:
        raise InputError(
            f"{socket.gethostname()}: finds faces by {detector.name}, not {config.detector}: its files must lie in "
            "the same place on all machines"
        )

    def work(video: Video, _tries: int, tell: Callable[[tuple[float, int]], None]) -> None:
        prepare_video(video, out, detector, lambda share, frames: tell((share, frames)), config)

    return work
