"""Metrics of the server for Prometheus, and its log as lines of JSON; neither holds personal data."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import torch
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from personalive.live.metrics import percentiles
from personalive.server.jobs import JobQueue
from personalive.server.sessions import SessionRegistry

LogFormat = Literal["text", "json"]
_DROPPED = ("dropped_driving", "dropped_viewer")


class ServerCollector(Collector):
    """Metrics of one server, read off its parts when they are asked for. Event loop only."""

    def __init__(self, sessions: SessionRegistry, jobs: JobQueue) -> None:
        self._sessions, self._jobs = sessions, jobs

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; those that are not known yet are left out."""
        sessions, worker = self._sessions, self._sessions.worker
        yield GaugeMetricFamily("personalive_ready", "1 while new sessions can be opened", value=sessions.ready)
        yield GaugeMetricFamily("personalive_sessions", "Open sessions", value=len(sessions))
        limit = worker.session_limit
        yield GaugeMetricFamily("personalive_session_limit", "Sessions that the device keeps up with", value=limit)
        yield GaugeMetricFamily("personalive_waiting_clients", "Clients in the queue", value=sessions.waiting)
        states = GaugeMetricFamily("personalive_jobs", "Jobs by state", labels=["state"])
        for state, count in Counter(job.state for job in self._jobs).items():
            states.add_metric([state], count)
        yield states
        yield from self._frames()
        if worker.step_s is not None:
            yield GaugeMetricFamily("personalive_step_seconds", "Median time of an engine call", value=worker.step_s)
        if worker.engine is not None and worker.engine.device.type == "cuda":
            memory = GaugeMetricFamily("personalive_device_memory_bytes", "Memory of the device", labels=["kind"])
            for kind, value in zip(("free", "total"), torch.cuda.mem_get_info(worker.engine.device), strict=True):
                memory.add_metric([kind], value)
            yield memory

    def _frames(self) -> Iterator[Metric]:
        totals = self._sessions.totals()
        yield CounterMetricFamily("personalive_sessions_opened", "Sessions ever opened", value=totals["opened"])
        yield CounterMetricFamily("personalive_frames", "Finished frames", value=totals["frames"])
        dropped = CounterMetricFamily("personalive_dropped_frames", "Frames dropped from a queue", labels=["queue"])
        for name in _DROPPED:
            dropped.add_metric([name.removeprefix("dropped_")], totals[name])
        yield dropped
        recent = [session.metrics.recent(session.clock()) for session in self._sessions]
        rate = sum(made for made, _ in recent)
        yield GaugeMetricFamily("personalive_frames_per_second", "Frames of all sessions, lately", value=rate)
        delays = GaugeMetricFamily(
            "personalive_delay_seconds", "Delay of the latest frames by stage", labels=["stage", "quantile"]
        )
        for stage, found in percentiles([sample for _, samples in recent for sample in samples]).items():
            for quantile, value in zip(("0.5", "0.95"), found, strict=True):
                if value is not None:
                    delays.add_metric([stage, quantile], value / 1e3)
        yield delays


def metrics_text(sessions: SessionRegistry, jobs: JobQueue) -> bytes:
    """Return the metrics of server and process in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(sessions, jobs))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class JsonFormatter(logging.Formatter):
    """Log records as JSON objects, one a line, with the session's id where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (session := getattr(record, "session", None)) is not None:
            line["session"] = session
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as(chosen: LogFormat) -> None:
    """Write the process's log to stderr as JSON with what happens to sessions; "text" leaves it to warnings."""
    if chosen == "json":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        logging.getLogger("personalive").setLevel(logging.INFO)
