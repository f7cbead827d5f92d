"""Certificates made on this machine, with their keys, as PEM files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CERTIFICATE_FILE, KEY_FILE = "certificate.pem", "key.pem"
NAME = "PersonaLive on this machine"


def make_certificate(
    folder: Path, extensions: Sequence[tuple[x509.ExtensionType, bool]], *, days: int, issuer: str = NAME
) -> tuple[Path, Path]:
    """Write a new certificate and private key to ``folder``. Only the owner can read the key.

    Args:
        extensions: with whether each is critical, besides those that say that it is no authority.
        issuer: another name than the certificate's own stands for an authority whose key is thrown away.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key = key if issuer == NAME else ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(NAME))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    certificate_path, key_path = folder / CERTIFICATE_FILE, folder / KEY_FILE
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate_path, key_path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
