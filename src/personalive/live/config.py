"""Defaults of live sessions (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """A session's queues and clocks. Every queue drops its oldest when full."""

    inbox_frames: int = 24  # driving frames not yet taken in: what a 30 fps camera sends in 0.8 s
    viewer_frames: int = 8  # finished frames not yet sent to one viewer: two chunks
    unacknowledged_frames: int = 8  # sent over a WebSocket and not yet acknowledged
    acknowledge_s: float = 0.5  # a client that answers later is a slow one
    slow_unacknowledged_frames: int = 2  # and gets no more than so many ahead
    camera_gain: float = 2.0  # frames made per camera frame, at most: more shortens the window's time
    assumed_camera_fps: float = 30.0  # until the frames' own clock is known
    rate_memory: float = 0.9  # share of the last estimate kept at each new frame or chunk
    late_share: float = 1.5  # a chunk waits for new frames this many of its own lengths, then repeats motion
    silent_s: float = 3.0  # without any new driving frame for so long, nothing is made
    latency_samples: int = 400  # finished frames behind the medians
    stats_interval_s: float = 1.0
    clip_side_px: int = 1280  # frames of a clip are shrunk to this longer side: a full inbox is held in memory
    idle_s: float = 30.0  # a session without any connection for so long ends
    recorded_s: float = 600.0  # longest performance kept as a template


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """Virtual camera and streams (ours)."""

    nominal_fps: int = 30  # told to receivers; frames keep their own times
    bit_rate: int = 4_000_000  # of streams
    preset: str = "veryfast"
    keyframe_every_s: float = 2.0  # what streaming services ask for
    network_timeout_s: float = 10.0


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Limits of the worker that all sessions share."""

    max_sessions: int = 4  # however fast the device is
    min_session_fps: float = 5.0  # sessions are admitted while each would still get this
    failures_before_stop: int = 3  # within a minute, before the worker is no longer restarted
    shutdown_s: float = 5.0
