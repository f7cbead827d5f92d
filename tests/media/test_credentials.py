"""Content credentials: read back by a reader that shares no code with the one that signs, whole and changed."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from personalive import __version__
from personalive.errors import InputError, OutputError
from personalive.media import credentials, signer
from personalive.media.credentials import MP4, WEBM, Origin, check_signer, read_credentials, sidecar, sign_file
from personalive.media.isolated import sign_isolated
from personalive.media.still import save_png
from personalive.media.writer import VideoWriter
from support.c2pa_reader import read
from support.clips import read_video

pytestmark = pytest.mark.isolated

ORIGIN = Origin(model="photo", composite=True)


@pytest.fixture(params=["mp4", "png", "webm"])
def signed(request: pytest.FixtureRequest, tmp_path: Path, clip) -> Path:
    path = tmp_path / f"result.{request.param}"
    if request.param == "png":
        return save_png(path, np.zeros((48, 64, 3), np.uint8), origin=ORIGIN)
    if request.param == "mp4":
        return write_video(path)
    clip(path.name, pts=range(3), codec="libvpx-vp9", container="webm")
    path.with_suffix(".c2pa").write_bytes(sidecar(path, WEBM, ORIGIN))
    return path


def write_video(path: Path, frames: int = 3) -> Path:
    with VideoWriter(path, 64, 48, origin=ORIGIN) as writer:
        for number in range(frames):
            writer.write(np.full((48, 64, 3), 40 * number, np.uint8), Fraction(number, 25))
    return path


def test_another_reader_finds_the_credentials_whole_and_nothing_personal_in_them(signed: Path):
    found = read(signed)
    assert found.whole
    program = {"name": "PersonaLive", "version": __version__}
    assert found.claim["claim_generator_info"].items() >= program.items()
    (action,) = found.actions
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert action["softwareAgent"] == program | {"model": "photo"}
    assert found.certificate.subject.rfc4514_string() == "CN=PersonaLive on this machine"
    own = read_credentials(signed)
    assert own is not None
    assert (own.intact, own.problems) == (True, ())
    assert (own.program, own.model) == (f"PersonaLive {__version__}", "photo")


def test_one_changed_bit_is_noticed_by_both(signed: Path):
    content = bytearray(signed.read_bytes())
    content[-60] ^= 1
    signed.write_bytes(content)
    assert not read(signed).whole
    own = read_credentials(signed)
    assert own is not None
    assert not own.intact
    assert own.problems


def test_a_signed_video_is_the_video(tmp_path: Path):
    with VideoWriter(tmp_path / "plain.mp4", 64, 48) as writer:
        for number in range(3):
            writer.write(np.full((48, 64, 3), 40 * number, np.uint8), Fraction(number, 25))
    plain, marked = read_video(tmp_path / "plain.mp4"), read_video(write_video(tmp_path / "signed.mp4"))
    assert plain.times == marked.times
    assert np.array_equal(plain.images, marked.images)
    assert read_credentials(tmp_path / "plain.mp4") is None


def test_damaged_credentials_are_one_line(tmp_path: Path):
    path = write_video(tmp_path / "video.mp4")
    content = path.read_bytes()
    place = content.index(b"c2pa.claim")
    path.write_bytes(content[:place] + bytes(100) + content[place + 100 :])
    with pytest.raises(InputError, match=r"video\.mp4: its content credentials are damaged"):
        read_credentials(path)


def test_a_disk_that_fills_up_while_signing_leaves_the_video_unsigned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(credentials, "_sign", full)
    with pytest.raises(OutputError, match=r"video\.mp4: its content credentials could not be written") as raised:
        write_video(tmp_path / "video.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["video.partial.mp4"]
    assert "video.partial.mp4" in raised.value.__notes__[0]
    assert len(read_video(tmp_path / "video.partial.mp4").times) == 3


def test_files_of_others_are_signed_in_a_process_of_their_own(tmp_path: Path):
    path = write_video(tmp_path / "video.mp4")
    assert sign_isolated(path, MP4, ORIGIN) == path
    assert read(path).whole
    cut_off = path.read_bytes()[:700]
    path.write_bytes(cut_off)
    with pytest.raises(InputError, match=r"video\.mp4: its content credentials could not be signed"):
        sign_isolated(path, MP4, ORIGIN)
    assert path.read_bytes() == cut_off


# --- the certificate ----------------------------------------------------------------------------------------


def test_the_users_certificate_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("PERSONALIVE_SIGNER", str(folder))
    signer._make(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    check_signer()
    path = write_video(tmp_path / "video.mp4")
    assert read(path).certificate.public_bytes(Encoding.PEM) == before["certificate.pem"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "key.pem").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("fault", ["no key", "another key", "no certificate", "not PEM"])
def test_an_unusable_certificate_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str):
    monkeypatch.setenv("PERSONALIVE_SIGNER", str(tmp_path))
    signer._make(tmp_path)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    if fault == "no key":
        key.unlink()
    elif fault == "no certificate":
        certificate.unlink()
    elif fault == "not PEM":
        certificate.write_text("me")
    else:
        other = ed25519.Ed25519PrivateKey.generate()
        key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InputError, match="cannot be signed with"):
        check_signer()


def test_where_no_certificate_can_be_kept_one_is_made_for_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERSONALIVE_SIGNER", str(tmp_path / "file" / "signer"))
    path = write_video(tmp_path / "video.mp4")
    sign_file(write_video(tmp_path / "other.mp4"), MP4, ORIGIN)
    assert read(path).certificate == read(tmp_path / "other.mp4").certificate
    (line,) = caplog.messages
    assert "PERSONALIVE_SIGNER names a folder" in line
