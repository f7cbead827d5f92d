"""``personalive serve``: the live page and its server."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from personalive.cli.console import show_rows
from personalive.cli.options import CredentialsOption, LiveStepsOption, ModelOptions, with_groups
from personalive.live.config import LiveConfig
from personalive.server.config import ServerConfig

EPILOG = """
\b
Examples:
  personalive serve                                      the released weights, else the model for photographs
  personalive serve --weights tiny                       the bundled diffusion model, of synthetic heads
  personalive serve --host 0.0.0.0 --self-signed         for a phone in the same network

Open the address that it prints, drop a portrait and turn the camera on. Other machines need the token in that
address, and browsers give them the camera over https only. Ctrl-C ends every session and removes all uploads.
"""


@dataclass(frozen=True, kw_only=True)
class _Access:
    """Address of the server, and who may use it."""

    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")] = (
        ServerConfig.host
    )
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = ServerConfig.port
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="PERSONALIVE_TOKEN",
            show_envvar=False,
            help="Secret that other machines must give to open a session; also in PERSONALIVE_TOKEN.",
            show_default="none on this machine, else a new one",
        ),
    ] = None
    origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Origin of another web page that may use the server, such as https://example.org; can be repeated.",
            show_default="none",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Certificate for https.", show_default="none")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.", show_default="none")] = None
    self_signed: Annotated[
        bool, typer.Option("--self-signed/--no-self-signed", help="https with a certificate made now.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class _Cluster:
    """Devices to serve on, where they are several."""

    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|auto|local",
            help="Serve on the devices of a Ray cluster, one server each, behind this one address: HOST:PORT of its "
            "head, 'auto' for the one this machine belongs to, 'local' for one of this machine alone. Needs "
            'pip install "personalive[cluster]".',
            show_default="none",
        ),
    ] = None
    replicas: Annotated[
        str | None,
        typer.Option(
            metavar="MIN..MAX",
            help="Servers of the cluster: a number, or the least and the most, as many as the load needs.",
            show_default="1 up to its number of GPUs",
        ),
    ] = None


@with_groups
def serve(
    model: ModelOptions = ModelOptions(),
    steps: LiveStepsOption = None,
    access: _Access = _Access(),
    idle: Annotated[
        float,
        typer.Option(min=1.0, metavar="SECONDS", help="A session without a connection ends after this long."),
    ] = LiveConfig.idle_s,
    ice_server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A STUN or TURN server for WebRTC beyond this network, such as stun:host:3478 or "
            "turn:user:password@host; can be repeated.",
            show_default="none",
        ),
    ] = None,
    max_sessions: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most sessions at once, of each server of a cluster; fewer where the device could not give each "
            "--min-fps frames per second.",
        ),
    ] = ServerConfig.max_sessions,
    credentials: CredentialsOption = True,
    min_fps: Annotated[
        float,
        typer.Option(min=0.1, help="Frames per second that each session must still get for another to be admitted."),
    ] = ServerConfig.min_session_fps,
    devices: _Cluster = _Cluster(),
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(help="Log on stderr: 'text' of faults alone; 'json' with sessions by their ids, a line each."),
    ] = "text",
) -> None:
    """Serve a page where a camera drives a portrait, live."""
    from personalive.server import run  # noqa: PLC0415 (imports torch)

    if devices.replicas is not None and devices.cluster is None:
        raise typer.BadParameter("--replicas means nothing without --cluster: leave it out")
    options = run.ServeOptions(
        weights=model.weights,
        model=model.engine_options(),
        steps=steps,
        host=access.host,
        port=access.port,
        token=access.token,
        origins=tuple(access.origin or ()),
        certificate=access.tls_cert,
        key=access.tls_key,
        self_signed=access.self_signed,
        max_sessions=max_sessions,
        min_session_fps=min_fps,
        credentials=credentials,
        log_format=log_format,
        idle_s=idle,
        ice_servers=tuple(ice_server or ()),
    )
    with tempfile.TemporaryDirectory(prefix="personalive-") as folder:
        if devices.cluster is None:
            server = run.prepare(options, Path(folder))
        else:
            from personalive.cluster import serve as serving  # noqa: PLC0415 (an extra)

            server = serving.prepare(options, Path(folder), devices.cluster, devices.replicas)
        notes = [("note", note) for note in server.notes]
        show_rows([("open", server.address), *notes, ("stop", "Ctrl-C")])
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):  # how one stops it
            server.run()
