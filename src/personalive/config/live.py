"""Live streams: controls, sessions, limits (ours)."""

from __future__ import annotations

from dataclasses import dataclass

from personalive.config.files import TemplateConfig


@dataclass(frozen=True, kw_only=True)
class ControlLimits:
    """Ranges of what a person may turn."""

    max_strength: float = 2.0  # of expression and head motion; beyond, faces fall apart
    max_smoothing: float = 0.95  # a half-life of 13 frames
    max_driving_fps: float = 60.0
    max_delay_ms: float = 3000.0


@dataclass(frozen=True, kw_only=True)
class DirectionConfig:
    """How a model's motion tokens are asked what mouth and eyes do to them."""

    people: int = 8  # drawn ones
    first_seed: int = 5_000
    min_agreement: float = 0.5  # mean cosine; the bundled model has 0.9, chance is near 0.35 for eight


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """A session's queues and clocks. Every queue drops its oldest when full."""

    inbox_frames: int = 24  # driving frames not yet taken in: what a 30 fps camera sends in 0.8 s
    viewer_frames: int = 8  # finished frames not yet sent to one viewer: two chunks
    unanswered_frames: int = 8  # sent over a WebSocket and not yet acknowledged
    answer_s: float = 0.5  # a client that answers later is a slow one
    late_unanswered_frames: int = 2  # and gets no more than so many ahead
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
class ServerConfig:
    """Doors and limits of the live server."""

    host: str = "127.0.0.1"
    port: int = 7860
    max_sessions: int = 4  # however fast the device is
    min_session_fps: float = 5.0  # sessions are admitted while each would still get this
    ticket_s: float = 30.0  # a place in line not asked for again for so long is lost
    waiting_places: int = 20
    retry_after_s: float = 2.0
    portrait_bytes: int = 30_000_000
    portrait_pixels: int = 50_000_000
    clip_bytes: int = 200_000_000
    template_bytes: int = TemplateConfig.max_bytes
    frame_bytes: int = 2_000_000
    frame_pixels: int = 4_000_000
    message_bytes: int = 4_096  # of a text message, or a JSON body
    upload_s: float = 120.0  # a body not here after so long is refused
    jpeg_quality: int = 88  # 0..100
    waiting_jobs: int = 8  # films asked for and not begun
    job_s: float = 3600.0  # a finished film is kept so long, and a job nobody starts
    requests_per_s: float = 20.0  # of one client, sustained, frames not counted
    request_burst: int = 60
    failures_before_stop: int = 3  # of the worker within a minute, before the server gives up restarting it
    shutdown_s: float = 5.0
    ice_servers: tuple[str, ...] = ()  # stun:HOST:PORT, turn:USER:PASSWORD@HOST:PORT; empty: own addresses alone
    sdp_bytes: int = 65_536  # of a WebRTC offer
    negotiate_s: float = 10.0  # an offer not answered after so long is refused
    connect_s: float = 30.0  # a WebRTC peer that is not connected after so long is closed
    webrtc_viewers: int = 4  # by WHEP, of one session: each costs an encoder
    repeat_s: float = 1.0  # a viewer by WHEP is sent the last frame again after so long, lest its player gives up


@dataclass(frozen=True, kw_only=True)
class OutletConfig:
    """Virtual camera and streams (ours)."""

    nominal_fps: int = 30  # told to receivers; frames keep their own times
    bit_rate: int = 4_000_000  # of streams
    preset: str = "veryfast"
    keyframe_every_s: float = 2.0  # what streaming services ask for
    network_timeout_s: float = 10.0
