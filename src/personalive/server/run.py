"""The server as a process: options checked, uvicorn configured, sessions ended before their connections."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from personalive.errors import InputError
from personalive.live.config import LiveConfig
from personalive.live.worker import make_worker
from personalive.media.credentials import NO_CREDENTIALS, check_signer
from personalive.runtime.load import AUTO, EngineOptions
from personalive.server.app import create_app
from personalive.server.auth import LOCAL_NAMES, Auth
from personalive.server.certificate import self_signed
from personalive.server.config import ServerConfig
from personalive.server.monitoring import LogFormat, log_as
from personalive.server.webrtc.sdp import read_ice_server

_GOODBYE_ROUNDS, _GOODBYE_ROUND_S = 50, 0.02  # longest wait for clients to read why they are disconnected


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of `personalive serve`."""

    weights: str = AUTO
    model: EngineOptions = field(default_factory=EngineOptions)
    host: str = ServerConfig.host
    port: int = ServerConfig.port
    token: str | None = None  # None: none on localhost, else a random one
    origins: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    self_signed: bool = False
    max_sessions: int = ServerConfig.max_sessions
    ice_servers: tuple[str, ...] = ServerConfig.ice_servers
    idle_s: float = LiveConfig.idle_s
    min_session_fps: float = ServerConfig.min_session_fps
    steps: int | None = None  # see ``ServerConfig``
    credentials: bool = ServerConfig.credentials
    log_format: LogFormat = "text"


@dataclass(frozen=True)
class Access:
    """Address, token and certificate of a server, once its options are checked."""

    token: str | None
    certificate: Path | None
    key: Path | None
    address: str  # of the page
    notes: list[str]  # for the user


@dataclass(frozen=True)
class Server:
    """Server that is ready to run, the address of its page, and notes for the user."""

    run: Callable[[], None]
    address: str
    notes: list[str] = field(default_factory=list)


class GracefulServer(uvicorn.Server):
    """Uvicorn that ends sessions before their connections: alone it would hang up without a reason."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the sessions, give their clients a moment to read why, then shut down."""
        registry = self._app.state.sessions
        registry.draining = True
        sessions = list(registry)
        registry.close_all("the server is shutting down")
        for _ in range(_GOODBYE_ROUNDS):
            if not any(session.connections for session in sessions):
                break
            await asyncio.sleep(_GOODBYE_ROUND_S)
        await super().shutdown(sockets)


def prepare(options: ServeOptions, folder: Path) -> Server:
    """Check all that can be checked before the model is loaded, and build the server.

    Args:
        folder: for a self-signed certificate.

    Raises:
        InputError: options that do not go together, or a port that is taken.
    """
    log_as(options.log_format)
    access = check_access(options, folder)
    app = build_app(options, access.token, server_config(options))
    config = uvicorn_config(app, options, host=options.host, port=options.port, access=access)
    return Server(GracefulServer(config, app).run, access.address, access.notes)


def check_access(options: ServeOptions, folder: Path) -> Access:
    """Check all options that the model has no part in.

    Args:
        folder: for a self-signed certificate.

    Raises:
        InputError: options that do not go together, or a port that is taken.
    """
    is_local = options.host in LOCAL_NAMES
    token = options.token or (None if is_local else secrets.token_urlsafe(12))
    certificate, key, notes = _tls_files(options, folder)
    for url in options.ice_servers:
        read_ice_server(url)
    _check_port(options.host, options.port)
    if options.credentials:
        check_signer()
    else:
        notes = [*notes, f"videos, recordings and snapshots have {NO_CREDENTIALS}"]
    scheme = "http" if certificate is None else "https"
    address = f"{scheme}://{_shown_host(options.host)}:{options.port}/" + (f"#token={quote(token)}" if token else "")
    return Access(token, certificate, key, address, notes)


def server_config(options: ServeOptions) -> ServerConfig:
    """Return the limits that the options set."""
    return ServerConfig(
        max_sessions=options.max_sessions,
        min_session_fps=options.min_session_fps,
        ice_servers=options.ice_servers,
        steps=options.steps,
        credentials=options.credentials,
    )


def build_app(
    options: ServeOptions, token: str | None, settings: ServerConfig, *, threads: int | None = None
) -> FastAPI:
    """Build the app of a server with a worker of its own; ``threads`` are torch's on a CPU."""
    return create_app(
        make_worker(options.weights, options.model, steps=options.steps, limits=settings, threads=threads),
        Auth(token, options.origins, config=settings),
        live=LiveConfig(idle_s=options.idle_s),
        server=settings,
    )


def uvicorn_config(
    app: FastAPI, options: ServeOptions, *, host: str, port: int, access: Access | None = None
) -> uvicorn.Config:
    """Configure uvicorn for an app of ``build_app``; ``access`` for its certificate."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        ssl_certfile=access and access.certificate,
        ssl_keyfile=access and access.key,
        log_level="warning",
        log_config=None if options.log_format == "json" else LOGGING_CONFIG,
        ws="websockets-sansio",
        ws_max_size=ServerConfig.frame_bytes + 1024,
        ws_max_queue=4,
        timeout_graceful_shutdown=int(ServerConfig.shutdown_s),
        server_header=False,
    )


def _tls_files(options: ServeOptions, folder: Path) -> tuple[Path | None, Path | None, list[str]]:
    """Return certificate, key, and notes for the user."""
    certificate, key = options.certificate, options.key
    if (certificate is None) != (key is None):
        raise InputError("--tls-cert and --tls-key belong together: give both, or --self-signed")
    if options.self_signed:
        note = "browsers warn of a self-signed certificate once: let them go on"
        return *self_signed(folder, options.host), [note]
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file")
    if certificate is None and options.host not in LOCAL_NAMES:
        note = "without TLS browsers allow no camera from other machines: add --self-signed, or --tls-cert"
        return None, None, [note]
    return certificate, key, []


def _shown_host(host: str) -> str:
    """Return a host name that can be opened: this machine's own for a server on all addresses."""
    if host not in ("0.0.0.0", "::"):
        return f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but selects the address that faces outwards
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


def _check_port(host: str, port: int) -> None:
    """Refuse a taken port now, before minutes of loading."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{host}:{port} cannot be used ({reason}): choose another --port or --host") from None
