"""From options to a running server."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import uvicorn

from personalive.errors import InputError
from personalive.live.config import LiveConfig
from personalive.live.worker import make_worker
from personalive.runtime.load import AUTO, EngineOptions
from personalive.server.app import create_app
from personalive.server.auth import LOCAL_NAMES, Auth
from personalive.server.certificate import self_signed
from personalive.server.config import ServerConfig
from personalive.server.serving import GracefulServer
from personalive.server.webrtc.sdp import read_ice_server


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `personalive serve` is asked for."""

    weights: str = AUTO
    model: EngineOptions = field(default_factory=EngineOptions)
    host: str = ServerConfig.host
    port: int = ServerConfig.port
    token: str | None = None  # None: none on localhost, else one is made
    origins: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    self_signed: bool = False
    max_sessions: int = ServerConfig.max_sessions
    ice_servers: tuple[str, ...] = ServerConfig.ice_servers
    idle_s: float = LiveConfig.idle_s
    min_session_fps: float = ServerConfig.min_session_fps


@dataclass(frozen=True)
class Server:
    """A server that is ready to run, and the address that opens its page."""

    run: Callable[[], None]
    address: str
    notes: list[str] = field(default_factory=list)


def prepare(options: ServeOptions, folder: Path) -> Server:
    """Check all that can be checked before anything is loaded.

    Args:
        folder: for a self-signed certificate.

    Raises:
        InputError: options that do not go together, or a port that is taken.
    """
    local = options.host in LOCAL_NAMES
    token = options.token or (None if local else secrets.token_urlsafe(12))
    if (options.certificate is None) != (options.key is None):
        raise InputError("--tls-cert and --tls-key belong together: give both, or --self-signed")
    certificate, key = options.certificate, options.key
    notes = []
    if options.self_signed:
        certificate, key = self_signed(folder, options.host)
        notes.append("browsers warn of a self-signed certificate once: let them go on")
    elif certificate is None and not local:
        notes.append("without TLS browsers allow no camera from other machines: add --self-signed, or --tls-cert")
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file")
    for url in options.ice_servers:
        read_ice_server(url)
    _check_port(options.host, options.port)
    settings = replace(
        ServerConfig(),
        max_sessions=options.max_sessions,
        min_session_fps=options.min_session_fps,
        ice_servers=options.ice_servers,
    )
    worker = make_worker(options.weights, options.model, limits=settings)
    app = create_app(
        worker,
        Auth(token, options.origins, config=settings),
        live=LiveConfig(idle_s=options.idle_s),
        server=settings,
    )
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=settings.frame_bytes + 1024,
        ws_max_queue=4,
        timeout_graceful_shutdown=int(settings.shutdown_s),
        server_header=False,
    )
    scheme = "http" if certificate is None else "https"
    shown = _shown_host(options.host)
    address = f"{scheme}://{shown}:{options.port}/" + (f"#token={quote(token)}" if token else "")
    return Server(GracefulServer(config, app).run, address, notes)


def _shown_host(host: str) -> str:
    """An address that can be opened: a server on all addresses is reached by this machine's own."""
    if host not in ("0.0.0.0", "::"):
        return f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells which of our addresses faces outwards
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


def _check_port(host: str, port: int) -> None:
    """Told now, before minutes of loading."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{host}:{port} cannot be used ({reason}): choose another --port or --host") from None
