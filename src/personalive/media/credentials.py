"""Content credentials (C2PA): a signed note in a file of what made it, which shows any later change of the file.

Nothing is sent anywhere: no time stamp is asked for and no list of issuers is fetched. c2pa loads 50 MB, so it is
imported inside functions; so is what reads certificates, which processes that decode do not need.
"""

from __future__ import annotations

import io
import json
import mimetypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from personalive import __version__
from personalive.errors import InputError, OutputError
from personalive.media.paths import check_input, reason, remove, temporary_beside

if TYPE_CHECKING:
    from personalive.media.signer import SignerFiles

SIDECAR = ".c2pa"  # beside a file of a kind that cannot hold credentials itself, such as WebM
MP4, PNG, WEBM = "video/mp4", "image/png", "video/webm"
NO_CREDENTIALS = "no content credentials: they are turned off"  # as a remark on what is written
_NONE_INSIDE = ("ManifestNotFound", "NotSupported")  # how errors of the library begin
_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_GENERATED, _COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Maker of an image or video, as its credentials tell; nothing about people, files or the machine."""

    model: str
    composite: bool = False  # it shows pixels of recorded media beside generated ones

    def composed(self) -> Origin:
        """The same of a composition with recorded media."""
        return replace(self, composite=True)

    def manifest(self) -> dict[str, Any]:
        """The C2PA manifest, without what binds it to a file."""
        program = {"name": "PersonaLive", "version": __version__}
        action = {
            "action": "c2pa.created",
            "digitalSourceType": _TERMS + (_COMPOSITE if self.composite else _GENERATED),
            "softwareAgent": program | {"model": self.model},
        }
        actions = {"label": "c2pa.actions.v2", "created": True, "data": {"actions": [action]}}
        return {"claim_generator_info": [program], "assertions": [actions]}


# --- signing --------------------------------------------------------------------------------------------------


def check_signer() -> None:
    """Find out before the work whether it can be signed, with a certificate made now where there is none.

    Raises:
        InputError: the user's certificate or key cannot sign.
    """
    from personalive.media.signer import signer_files  # noqa: PLC0415

    _tried(signer_files())


@cache
def _tried(files: SignerFiles) -> None:
    content = io.BytesIO()
    Image.new("RGB", (1, 1)).save(content, "PNG")
    try:
        sign_bytes(content.getvalue(), PNG, Origin(model=""))
    except OutputError as error:
        raise InputError(
            f"{files.folder}: its certificate cannot sign content credentials ({error}): put another there, remove "
            "both files to have one made, or use --no-credentials"
        ) from None


def sign_file(path: Path, media_type: str, origin: Origin) -> None:
    """Put credentials into the file at ``path``: it is replaced, whole or not at all.

    Raises:
        InputError: the certificate is not usable.
        OutputError: the file is of no such kind, or the disk is full; it stays as it was.
    """
    temporary = temporary_beside(path)
    try:
        with path.open("rb") as source, temporary.open("w+b") as target:
            _sign(source, target, media_type, origin)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"its content credentials could not be written ({reason(error)})") from error
    finally:
        remove(temporary)


def sign_bytes(content: bytes, media_type: str, origin: Origin) -> bytes:
    """Return a file's ``content`` with credentials in it.

    Raises:
        InputError, OutputError: as ``sign_file``.
    """
    target = io.BytesIO()
    _sign(io.BytesIO(content), target, media_type, origin)
    return target.getvalue()


def sidecar(path: Path, media_type: str, origin: Origin) -> bytes:
    """Return the credentials of a file as a file of their own, which belongs beside it with the ending ``SIDECAR``.

    Raises:
        InputError, OutputError: as ``sign_file``.
    """
    with path.open("rb") as source:
        return _sign(source, io.BytesIO(), media_type, origin, embed=False)


def _sign(source: BinaryIO, target: BinaryIO, media_type: str, origin: Origin, *, embed: bool = True) -> bytes:
    import c2pa  # noqa: PLC0415 (slow)

    from personalive.media.signer import signer_files  # noqa: PLC0415

    files = signer_files()

    def sign() -> bytes:
        info = c2pa.C2paSignerInfo(files.algorithm, files.certificate, files.key, None)
        with _context(c2pa.Signer.from_info(info)) as context, c2pa.Builder(origin.manifest(), context) as builder:
            if not embed:
                builder.set_no_embed()
            return builder.sign(media_type, source, target)

    # The library reads and writes by callbacks, in which Ctrl-C would be lost: on a thread of its own there is none.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(sign).result()
        except c2pa.C2paError as error:
            raise OutputError(f"its content credentials could not be signed ({reason(error)})") from error


@contextmanager
def _context(signer: Any = None) -> Iterator[Any]:
    import c2pa  # noqa: PLC0415 (slow)

    with c2pa.Settings.from_dict(_SETTINGS) as settings, c2pa.Context(settings, signer) as context:
        yield context


# --- reading --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Content credentials of a file, of whichever program. Texts are the file's own: one line each, printable."""

    intact: bool  # the file is what was signed
    program: str  # that signed, with its version
    model: str | None
    source: str | None  # IPTC digital source type, such as "trainedAlgorithmicMedia"
    signer: str | None  # name in the certificate, which nobody has checked
    problems: tuple[str, ...]  # of one that is not intact
    sidecar: Path | None  # where they lie, if not in the file


def read_credentials(path: Path) -> Credentials | None:
    """Read and check the credentials in a file, or in the ``SIDECAR`` beside it. None where there are none.

    Raises:
        InputError: the file cannot be read, or its credentials are damaged.
    """
    import c2pa  # noqa: PLC0415 (slow)

    path = check_input(path)
    beside = path.with_suffix(SIDECAR)
    try:
        with _context() as context, path.open("rb") as file:
            try:
                reader, lies = c2pa.Reader(None, file, None, context), None
            except c2pa.C2paError as error:
                if not str(error).startswith(_NONE_INSIDE):
                    raise
                if not beside.is_file():
                    return None
                file.seek(0)
                media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
                reader, lies = c2pa.Reader(media_type, file, beside.read_bytes(), context), beside
            with reader:
                return _credentials(json.loads(reader.json()), lies)
    except (c2pa.C2paError, OSError, ValueError) as error:
        raise InputError(f"{path}: its content credentials are damaged ({_plain(reason(error))})") from None


def _credentials(found: dict[str, Any], lies: Path | None) -> Credentials:
    manifest = found["manifests"][found["active_manifest"]]
    program = (manifest.get("claim_generator_info") or [{}])[0]
    certificate = manifest.get("signature_info") or {}
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    agents = [action["softwareAgent"] for action in actions if isinstance(action.get("softwareAgent"), dict)]
    sources = [action["digitalSourceType"] for action in actions if action.get("digitalSourceType")]
    problems = [
        problem["explanation"]
        for problem in found.get("validation_status") or []
        if problem["code"] != "signingCredential.untrusted"
    ]
    return Credentials(
        intact=found["validation_state"] in ("Valid", "Trusted"),
        program=_plain(f"{program.get('name', 'an unnamed program')} {program.get('version') or ''}"),
        model=next((_plain(agent["model"]) for agent in agents if agent.get("model")), None),
        source=next((_plain(source.removeprefix(_TERMS)) for source in sources), None),
        signer=_plain(certificate.get("common_name") or certificate.get("issuer") or "") or None,
        problems=tuple(_plain(problem) for problem in problems),
        sidecar=lies,
    )


def _plain(text: object) -> str:
    """``text`` on one line, without what a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
