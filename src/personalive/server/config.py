"""Defaults and limits of the live server (ours)."""

from __future__ import annotations

from dataclasses import dataclass

from personalive.live.config import WorkerConfig
from personalive.offline.config import MotionFileConfig


@dataclass(frozen=True, kw_only=True)
class ServerConfig(WorkerConfig):
    """Address and limits of the live server."""

    host: str = "127.0.0.1"
    port: int = 7860
    steps: int | None = None  # of denoising, of sessions and videos that ask for none; None: the model's own
    ticket_s: float = 30.0  # a ticket not used for so long is dropped
    waiting_places: int = 20  # tickets at once
    retry_after_s: float = 2.0
    portrait_bytes: int = 30_000_000
    portrait_pixels: int = 50_000_000
    clip_bytes: int = 200_000_000
    template_bytes: int = MotionFileConfig.max_bytes
    recording_bytes: int = 1_000_000_000  # that is sent to be signed: 20 minutes of the page's
    signed_at_once: int = 2  # recordings, each twice on the disk
    credentials: bool = True  # sign videos, recordings and snapshots
    frame_bytes: int = 2_000_000
    frame_pixels: int = 4_000_000
    message_bytes: int = 4_096  # of a text message, or a JSON body
    decoders: int = 4  # uploads that are looked into at once, each by a process
    upload_s: float = 120.0  # an upload that takes longer is refused
    jpeg_quality: int = 88  # 0..100
    waiting_jobs: int = 8  # jobs that have not finished, besides the one that runs
    job_s: float = 3600.0  # a finished job is kept so long, and one that is never started
    requests_per_s: float = 20.0  # of one client, sustained, frames not counted
    request_burst: int = 60
    ice_servers: tuple[str, ...] = ()  # stun:HOST:PORT, turn:USER:PASSWORD@HOST:PORT; empty: own addresses alone
    sdp_bytes: int = 65_536  # of a WebRTC offer
    negotiate_s: float = 10.0  # an offer not answered after so long is refused
    connect_s: float = 30.0  # a WebRTC connection not established after so long is closed
    webrtc_viewers: int = 4  # by WHEP, of one session: each costs an encoder
    repeat_s: float = 1.0  # the last frame is repeated to WHEP viewers after so long, so that players do not time out
