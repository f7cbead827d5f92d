"""Defaults of live sessions (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """Queues and timing of a session. Every queue drops its oldest when full."""

    inbox_frames: int = 24  # driving frames that wait for a chunk: 0.8 s of a 30 fps camera
    viewer_frames: int = 8  # finished frames that wait for one viewer: two chunks
    unacknowledged_frames: int = 8  # sent over a WebSocket and not yet acknowledged
    acknowledge_s: float = 0.5  # a client that acknowledges later is slow
    slow_unacknowledged_frames: int = 2  # limit for a slow client
    camera_gain: float = 2.0  # most frames made per camera frame: more than 1 shortens the time to fill a chunk
    assumed_camera_fps: float = 30.0  # until the rate is measured
    rate_memory: float = 0.9  # of the moving average of the frame period
    late_share: float = 1.5  # chunk lengths to wait for new frames before the motion is repeated
    silent_s: float = 3.0  # without driving frames for so long, nothing is made
    latency_samples: int = 400  # finished frames that percentiles are taken over
    stats_interval_s: float = 1.0
    clip_side_px: int = 1280  # frames of a clip are shrunk to this longer side: a full queue is held in memory
    idle_s: float = 30.0  # without a connection for so long, a session ends
    recorded_s: float = 600.0  # longest recording of motion
    photograph_side_px: int = 1280  # photographs shown whole are shrunk to this longer side, in which they are sent


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """Virtual camera and streams."""

    nominal_fps: int = 30  # rate that is announced; frames keep their own times
    bit_rate: int = 4_000_000  # of streams
    preset: str = "veryfast"
    keyframe_every_s: float = 2.0  # what streaming services ask for
    network_timeout_s: float = 10.0


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Limits of the worker."""

    max_sessions: int = 4  # however fast the device is
    min_session_fps: float = 5.0  # sessions are admitted while each would still get this
    failures_before_stop: int = 3  # within a minute: then the worker is no longer restarted
    shutdown_s: float = 5.0
