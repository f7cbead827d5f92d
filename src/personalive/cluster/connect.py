"""Connection to a Ray cluster: a running one, or one of this machine for as long as the command runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from personalive.errors import DeviceError, InputError

LOCAL, AUTO = "local", "auto"
_CONNECT_S = 5.0  # Ray itself tries an address at which nobody answers for minutes


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected: the module ``ray``. A local cluster ends with the context.

    A program that is connected already stays so, to that cluster.

    Args:
        address: "local" for a cluster of this machine, begun here; HOST:PORT of a cluster's head, on one of whose
            machines this must run; "auto" for the cluster that this machine belongs to.

    Raises:
        InputError: no such address.
        DeviceError: Ray is not installed, or there is no cluster that answers.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    check_address(address)
    if address not in (LOCAL, AUTO) and os.environ.get("RAY_USE_TLS", "0") != "1":
        _check_answer(address)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    local: dict[str, Any] = {}
    if address == LOCAL:
        os.environ.setdefault("RAY_worker_niceness", "0")  # as the command itself, where Ray has 15
        local = {"include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **quiet, **local)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise DeviceError(f"--cluster {address}: no connection ({reason}); check `ray status` there") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own would end the command without a word
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 (an extra, and slow)
    except ImportError:
        raise DeviceError('a cluster needs Ray: pip install "personalive[cluster]"') from None
    return ray


def check_address(address: str) -> None:
    """Refuse what ``connected`` could not connect to, without trying.

    Raises:
        InputError: no such address.
        DeviceError: Ray is not installed.
    """
    _import_ray()
    host, colon, port = address.rpartition(":")
    if address in (LOCAL, AUTO):
        return
    if "/" in address or not (colon and host and port.isdecimal() and int(port) < 1 << 16):
        raise InputError(
            f"--cluster {address!r}: give {LOCAL}, HOST:PORT of the cluster's head, such as 10.0.0.1:6379, or "
            f"{AUTO} on one of its machines"
        )


def _check_answer(address: str) -> None:
    """Refuse an address at which no server of Ray's protocol answers."""
    import grpc  # noqa: PLC0415 (comes with Ray)

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
        except grpc.FutureTimeoutError:
            raise DeviceError(
                f"--cluster {address}: no Ray cluster answers there; start one with `ray start --head`"
            ) from None
