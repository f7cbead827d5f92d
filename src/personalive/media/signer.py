"""The certificate that content credentials are signed with: the user's, or one made here once."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from personalive.certificates import CERTIFICATE_FILE, KEY_FILE, make_certificate
from personalive.config import SIGNER_ENV, default_signer_folder
from personalive.errors import InputError
from personalive.media.paths import reason

_LOG = logging.getLogger(__name__)
_DAYS = 7300  # without a time stamp, a signature holds no longer than its certificate
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, kw_only=True)
class SignerFiles:
    """Certificate chain and private key in PEM, the C2PA name of the key's algorithm, and where they lie."""

    folder: Path
    certificate: bytes
    key: bytes
    algorithm: str


def signer_files() -> SignerFiles:
    """The certificate and key in ``default_signer_folder()``, made now where there are none.

    Where nothing can be written there, they are made in a private folder that goes with this process.

    Raises:
        InputError: one of the two is missing, or they cannot be used.
    """
    return _load(_filled(default_signer_folder()))


@cache
def _filled(folder: Path) -> Path:
    if any((folder / name).exists() for name in (CERTIFICATE_FILE, KEY_FILE)):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".personalive-", dir=folder.parent))
        _make(made)
        with suppress(OSError):
            folder.rmdir()  # an empty one
        try:
            made.rename(folder)
        except OSError:  # another process was faster, or other files are there
            shutil.rmtree(made, ignore_errors=True)
            if not (folder / KEY_FILE).exists():
                _make(folder)
    except OSError as error:
        folder, wanted = Path(tempfile.mkdtemp(prefix="personalive-signer-")), folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _make(folder)
        _LOG.warning(
            "%s: no certificate for content credentials can be kept there (%s): one is made anew each time, until %s "
            "names a folder",
            wanted,
            reason(error),
            SIGNER_ENV,
        )
    return folder


def _make(folder: Path) -> None:
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])  # one of those that C2PA allows
    extensions = [(x509.KeyUsage(digital_signature=True, **usage), True), (purpose, False)]
    # C2PA refuses certificates that sign themselves.
    make_certificate(folder, extensions, days=_DAYS, issuer="PersonaLive, unchecked")


@cache
def _load(folder: Path) -> SignerFiles:
    certificate, key = folder / CERTIFICATE_FILE, folder / KEY_FILE
    try:
        loaded = load_pem_private_key(key.read_bytes(), password=None)
        first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        if first.public_key() != loaded.public_key():
            raise ValueError("the key is not the certificate's")
        return SignerFiles(
            folder=folder, certificate=certificate.read_bytes(), key=key.read_bytes(), algorithm=_algorithm(loaded)
        )
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"{folder}: cannot be signed with ({reason(error)}): {CERTIFICATE_FILE} holds the certificate and its "
            f"chain, {KEY_FILE} its private key without a passphrase; remove both to have one made"
        ) from None


def _algorithm(key: object) -> str:
    match key:
        case ec.EllipticCurvePrivateKey() if key.curve.name in _CURVES:
            return _CURVES[key.curve.name]
        case ed25519.Ed25519PrivateKey():
            return "ed25519"
        case rsa.RSAPrivateKey():
            return "ps256"
    raise ValueError("C2PA knows no such kind of key")
