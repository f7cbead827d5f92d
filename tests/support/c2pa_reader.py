"""A reader of C2PA content credentials of its own: boxes, CBOR, the certificate's signature and the file's hash.

It shares no line with the library that signs, and knows only what our own files hold.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

_C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_ES256 = -7


@dataclass
class ReadCredentials:
    """Contents of a file's credentials, and which of their promises hold."""

    claim: dict[str, Any]
    actions: list[dict[str, Any]]
    certificate: x509.Certificate
    claim_is_signed: bool
    assertions_match: bool
    file_matches: bool

    @property
    def whole(self) -> bool:
        return self.claim_is_signed and self.assertions_match and self.file_matches


def read(path: Path) -> ReadCredentials:
    """Credentials of an mp4, PNG, or anything with a sidecar."""
    content = path.read_bytes()
    store = _store(content) or path.with_suffix(".c2pa").read_bytes()
    found = {label: (box, raw) for label, box, raw in _leaves(store)}
    claim = _cbor(found["c2pa.claim.v2"][0])
    protected, unprotected, _, signature = _cbor(found["c2pa.signature"][0])
    headers = _cbor(protected) | unprotected
    assert headers[1] == _ES256
    chain = headers[33] if isinstance(headers[33], list) else [headers[33]]
    certificate = x509.load_der_x509_certificate(chain[0])
    signed = _encode(["Signature1", protected, b"", found["c2pa.claim.v2"][0]])
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    half = len(signature) // 2
    der = utils.encode_dss_signature(*(int.from_bytes(part) for part in (signature[:half], signature[half:])))
    try:
        key.verify(der, signed, ec.ECDSA(hashes.SHA256()))
        is_signed = True
    except InvalidSignature:
        is_signed = False
    named = {entry["url"].rsplit("/", 1)[-1]: entry["hash"] for entry in claim["created_assertions"]}
    match = all(hashlib.sha256(found[label][1]).digest() == wanted for label, wanted in named.items())
    binding = next(label for label in named if label.startswith("c2pa.hash."))
    return ReadCredentials(
        claim=claim,
        actions=_cbor(found["c2pa.actions.v2"][0])["actions"],
        certificate=certificate,
        claim_is_signed=is_signed,
        assertions_match=match,
        file_matches=_file_hash(binding, _cbor(found[binding][0]), content) == _cbor(found[binding][0])["hash"],
    )


def _file_hash(binding: str, stated: dict[str, Any], content: bytes) -> bytes:
    digest = hashlib.sha256()
    if binding.startswith("c2pa.hash.bmff"):
        skipped = {exclusion["xpath"] for exclusion in stated["exclusions"]}
        for kind, start, end in _boxes(content):
            if f"/{kind}" not in skipped:
                digest.update(struct.pack(">Q", start) + content[start:end])
        return digest.digest()
    at = 0
    for exclusion in stated.get("exclusions") or []:
        digest.update(content[at : exclusion["start"]])
        at = exclusion["start"] + exclusion["length"]
    digest.update(content[at:])
    return digest.digest()


def _store(content: bytes) -> bytes | None:
    """The manifest store in an mp4's or a PNG's own box."""
    if content.startswith(b"\x89PNG"):
        at = 8
        while at < len(content):
            (size,) = struct.unpack_from(">I", content, at)
            if content[at + 4 : at + 8] == b"caBX":
                return content[at + 8 : at + 8 + size]
            at += 12 + size
    elif content[4:8] == b"ftyp":
        for kind, start, end in _boxes(content):
            if kind == "uuid" and content[start + 8 : start + 24] == _C2PA_UUID:
                # After the id: version and flags, "manifest" with its zero, and an offset.
                return content[start + 24 + 4 + 9 + 8 : end]
    return None


def _boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[str, int, int]]:
    end = len(content) if end is None else end
    while start + 8 <= end:
        size = struct.unpack_from(">I", content, start)[0]
        size = struct.unpack_from(">Q", content, start + 8)[0] if size == 1 else size or end - start
        yield content[start + 4 : start + 8].decode("latin-1"), start, min(start + size, end)
        start += size


def _leaves(store: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield (label, content, what a hash of it covers) of every labelled box of the store that holds CBOR."""
    for kind, first, last in _boxes(store, start, end):
        if kind != "jumb":
            continue
        inside = list(_boxes(store, first + 8, last))
        _, begin, finish = inside[0]  # "jumd": 16 bytes of type, flags, label
        label = store[begin + 25 : finish].partition(b"\0")[0].decode()
        for inner, at, to in inside[1:]:
            if inner == "cbor":
                yield label, store[at + 8 : to], store[first + 8 : last]
        yield from _leaves(store, first + 8, last)


# --- CBOR, as much as credentials hold -----------------------------------------------------------------------


def _cbor(data: bytes) -> Any:
    value, end = _item(data, 0)
    assert end == len(data)
    return value


def _item(data: bytes, at: int) -> tuple[Any, int]:
    kind, short = divmod(data[at], 32)
    at += 1
    number = short
    if short >= 24:
        size = 1 << (short - 24)
        number = int.from_bytes(data[at : at + size])
        at += size
    if kind in (0, 1):
        return number if kind == 0 else -1 - number, at
    if kind in (2, 3):
        text = data[at : at + number]
        return text if kind == 2 else text.decode(), at + number
    if kind == 4:
        values = []
        for _ in range(number):
            value, at = _item(data, at)
            values.append(value)
        return values, at
    if kind == 5:
        pairs = {}
        for _ in range(number):
            key, at = _item(data, at)
            pairs[key], at = _item(data, at)
        return pairs, at
    if kind == 6:  # a tag: its value alone
        return _item(data, at)
    return {20: False, 21: True, 22: None}[short], at


def _encode(value: Any) -> bytes:
    """CBOR of texts, bytes and lists of them."""
    kind, count = (4, len(value)) if isinstance(value, list) else (2 if isinstance(value, bytes) else 3, len(value))
    size = next(n for n in (0, 1, 2, 4, 8) if count < (24 if n == 0 else 256**n))
    code = count if size == 0 else 23 + {1: 1, 2: 2, 4: 3, 8: 4}[size]
    head = bytes([kind * 32 + code]) + (count.to_bytes(size) if size else b"")
    if isinstance(value, list):
        return head + b"".join(map(_encode, value))
    return head + (value if isinstance(value, bytes) else value.encode())
