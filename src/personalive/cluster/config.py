"""Defaults of a cluster of live servers (ours)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServeClusterConfig:
    """Times of ingress and replicas, and when replicas are added and removed."""

    state_interval_s: float = 0.25  # a replica sends its state to the ingress so often
    join_interval_s: float = 1.0  # and makes itself known so often: the ingress may be new
    heartbeat_s: float = 20.0  # a host that does not answer a ping for half as long is lost
    place_s: float = 60.0  # a session that finds no replica for so long ends
    drain_s: float = 600.0  # a replica that leaves waits so long for its jobs, then it is killed
    busy_share: float = 0.8  # replicas are added where sessions would take more than this share of all places
    equal_share: float = 0.25  # loads of two replicas that differ by less count as equal
    measured_s: float = 4.0  # load is averaged over so long
    upscale_delay_s: float = 5.0
    downscale_delay_s: float = 120.0
    frames_skipped: int = 1000  # by the index of a session that moves: more than were made since it was saved
