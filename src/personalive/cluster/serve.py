"""`personalive serve --cluster`: live servers as replicas of Ray Serve, behind one ingress."""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from personalive.cluster.config import ServeClusterConfig
from personalive.cluster.connect import connected
from personalive.cluster.ingress import build_app
from personalive.cluster.replica import LiveReplica
from personalive.errors import DeviceError, InputError
from personalive.server.auth import Auth
from personalive.server.run import Access, ServeOptions, Server, check_access, server_config

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.config import AutoscalingContext

APPLICATION = "personalive"
TOKEN_ENV = "PERSONALIVE_TOKEN"
_CHECK_S, _STOP_S = 2.0, 5.0
_REQUESTS = 1_000_000  # at once: the ingress and the sessions have limits of their own


@dataclass(frozen=True, kw_only=True)
class ServeClusterOptions:
    """Replicas of a cluster, and what each serves."""

    serve: ServeOptions = field(default_factory=ServeOptions)
    min_replicas: int = 1
    max_replicas: int = 1
    cpus: float = 1.0  # of each replica
    gpus: float = 0.0
    config: ServeClusterConfig = field(default_factory=ServeClusterConfig)


class IngressDeployment:
    """Deployment of Ray Serve: the one ingress."""

    def __init__(self, options: ServeClusterOptions, secret: str, replicas: object) -> None:
        """
        Args:
            secret: token of the replicas.
            replicas: that make themselves known; named here so that Ray Serve begins them.
        """
        settings = server_config(options.serve)
        auth = Auth(options.serve.token, options.serve.origins, config=settings)
        self._app = build_app(auth, secret, settings, options.config)

    def __serve_build_asgi_app__(self) -> Any:
        return self._app

    async def join(self, ident: str, url: str) -> None:
        """Link a replica."""
        self._app.state.ingress.links.join(ident, url)

    async def stop(self) -> None:
        """End all sessions."""
        await self._app.state.ingress.links.stop()


def wanted_replicas(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Return how many replicas the sessions and those who wait need, for Ray Serve's autoscaling."""
    measured = context.aggregated_metrics or {}
    sessions, limits = measured.get("sessions", {}), measured.get("limit", {})
    if not limits:
        return context.target_num_replicas, {}
    waiting = max(measured.get("waiting", {}).values(), default=0.0)
    return replicas_for(sum(sessions.values()) + waiting, sum(limits.values()) / len(limits)), {}


def replicas_for(sessions: float, places: float) -> int:
    """Return how many replicas of ``places`` sessions each leave some of them free."""
    return max(1, math.ceil(sessions / (places * ServeClusterConfig.busy_share)))


def application(options: ServeClusterOptions) -> Application:
    """Return the application of Ray Serve."""
    from ray import serve  # noqa: PLC0415 (an extra, and slow)
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy  # noqa: PLC0415

    secret, config = secrets.token_urlsafe(24), options.config
    replicas = serve.deployment(
        LiveReplica,
        name="LiveReplica",
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=options.max_replicas,
            policy=AutoscalingPolicy(policy_function=wanted_replicas),
            metrics_interval_s=config.measured_s / 4,
            look_back_period_s=config.measured_s,
            upscale_delay_s=config.upscale_delay_s,
            downscale_delay_s=config.downscale_delay_s,
        ),
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=config.drain_s,
        max_constructor_retry_count=2,
        health_check_period_s=2.0,
    ).bind(options.serve, secret, max(1, int(options.cpus)), config)
    ingress = serve.deployment(
        serve.ingress()(IngressDeployment),
        name="Ingress",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_REQUESTS,
        graceful_shutdown_timeout_s=2.0,
    )
    return ingress.bind(options, secret, replicas)


class Arguments(BaseModel):
    """Arguments of ``build``, as in a RayService's ``serveConfigV2``; see `personalive serve --help`."""

    model_config = ConfigDict(extra="forbid")

    weights: str = ServeOptions.weights
    replicas: str = "1"
    cpus: float = ServeClusterOptions.cpus
    gpus: float = 1.0
    max_sessions: int = ServeOptions.max_sessions
    min_fps: float = ServeOptions.min_session_fps
    ice_servers: list[str] = []
    origins: list[str] = []


def build(arguments: Arguments) -> Application:
    """Build the application for `serve run` and RayService; the token is taken from PERSONALIVE_TOKEN.

    Raises:
        InputError: no token, or arguments that cannot be used.
    """
    if not (token := os.environ.get(TOKEN_ENV)):
        raise InputError(f"set {TOKEN_ENV}: a server on a cluster is reached from other machines")
    low, high = read_replicas(arguments.replicas)
    options = ServeOptions(
        weights=arguments.weights,
        token=token,
        max_sessions=arguments.max_sessions,
        min_session_fps=arguments.min_fps,
        ice_servers=tuple(arguments.ice_servers),
        origins=tuple(arguments.origins),
        log_format="json",
    )
    return application(
        ServeClusterOptions(
            serve=options, min_replicas=low, max_replicas=high, cpus=arguments.cpus, gpus=arguments.gpus
        )
    )


def read_replicas(text: str) -> tuple[int, int]:
    """Return the least and largest number of replicas of ``4`` or ``1..4``.

    Raises:
        InputError: neither.
    """
    low, dots, high = text.partition("..")
    found = (low, high if dots else low)
    if not all(part.isdecimal() for part in found) or not 1 <= int(found[0]) <= int(found[1]):
        raise InputError(f"--replicas {text!r}: give a number such as 4, or the least and the most, such as 1..4")
    return int(found[0]), int(found[1])


def prepare(options: ServeOptions, folder: Path, address: str, replicas: str | None) -> Server:
    """Check all that can be checked here, and build the server.

    Args:
        folder: for a self-signed certificate.
        address: of the cluster, see ``connected``.
        replicas: see ``read_replicas``; None: one for each of the cluster's GPUs, as they are needed.

    Raises:
        InputError: options that cannot be used.
    """
    counts = None if replicas is None else read_replicas(replicas)
    access = check_access(options, folder)
    options = replace(options, token=access.token)

    def run() -> None:
        with connected(address) as ray:
            resources = ray.cluster_resources()
            gpus = int(resources.get("GPU", 0))
            low, high = counts or (1, max(1, gpus))
            cluster = ServeClusterOptions(
                serve=options,
                min_replicas=low,
                max_replicas=high,
                cpus=1.0 if gpus else resources.get("CPU", 1.0) / high,
                gpus=1.0 if gpus else 0.0,
            )
            with serving(cluster, access):
                while True:
                    time.sleep(_CHECK_S)
                    ray.cluster_resources()  # raises where the cluster is gone

    return Server(run, access.address, access.notes)


@contextmanager
def serving(options: ServeClusterOptions, access: Access | None = None) -> Iterator[None]:
    """Serve on the connected cluster; all sessions and replicas end with the context.

    Args:
        access: for its certificate.

    Raises:
        DeviceError: the replicas cannot start.
    """
    from ray import serve  # noqa: PLC0415 (an extra, and slow)
    from ray.serve.config import HTTPOptions  # noqa: PLC0415

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # its progress would stand between our lines
    http = HTTPOptions(host=options.serve.host, port=options.serve.port)
    if access is not None and access.certificate is not None:
        http = http.model_copy(update={"ssl_certfile": str(access.certificate), "ssl_keyfile": str(access.key)})
    serve.start(http_options=http)
    try:
        try:
            serve.run(application(options), name=APPLICATION, route_prefix="/")
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise DeviceError(f"the cluster cannot serve: {reason}") from None
        yield
    finally:
        with suppress(Exception):
            serve.get_app_handle(APPLICATION).stop.remote().result(timeout_s=_STOP_S)
        serve.shutdown()
