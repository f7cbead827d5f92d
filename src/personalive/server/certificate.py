"""Self-signed certificates, so that a phone's browser allows the camera."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from cryptography import x509

from personalive.certificates import make_certificate

_DAYS = 30


def self_signed(folder: Path, host: str) -> tuple[Path, Path]:
    """Write a new certificate and private key for ``host`` and this machine's names as PEM files in ``folder``.

    Only the owner can read the key.
    """
    return make_certificate(folder, [(x509.SubjectAlternativeName(_names(host)), False)], days=_DAYS)


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    addresses = {"127.0.0.1", host, *_own_addresses()}
    for address in sorted(addresses):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    return names


def _own_addresses() -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()
