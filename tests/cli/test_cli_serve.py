"""`personalive serve`: what is checked before anything is loaded, and a whole life as a process."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from cryptography import x509

from personalive.cli.main import main
from personalive.errors import InputError
from personalive.server.certificate import self_signed
from personalive.server.run import ServeOptions, prepare
from support.small_model import write_small_model
from support.waiting import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tls-cert", "cert.pem"], "belong together"),
        (["--tls-cert", "cert.pem", "--tls-key", "key.pem"], "cert.pem: no such file"),
        (["--ice-server", "http://example.com"], "stun"),
        (["--host", "203.0.113.1"], "cannot be used"),
    ],
)
def test_options_that_cannot_work_are_told_at_once(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["serve", "--weights", "tiny", "--port", str(free_port()), *arguments]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_a_taken_port_is_told_at_once(capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another --port" in capsys.readouterr().err


def test_only_this_machine_needs_no_token(tmp_path: Path):
    assert "#token=" not in prepare(ServeOptions(port=free_port()), tmp_path).address
    abroad = prepare(ServeOptions(host="0.0.0.0", port=free_port()), tmp_path)
    assert len(abroad.address.partition("#token=")[2]) >= 16
    assert any("--self-signed" in note for note in abroad.notes)
    named = prepare(ServeOptions(host="0.0.0.0", port=free_port(), token="a b"), tmp_path)
    assert named.address.endswith("#token=a%20b")


def test_a_self_signed_certificate_names_this_machine_and_hides_its_key(tmp_path: Path):
    certificate, key = self_signed(tmp_path, "192.168.7.7")
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    alternative = names.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in alternative.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "192.168.7.7"} <= addresses
    assert "localhost" in alternative.get_values_for_type(x509.DNSName)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


def test_a_bad_ice_server_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError):
        prepare(ServeOptions(port=free_port(), ice_servers=("stun:",)), tmp_path)


def test_a_server_answers_over_https_and_ends_by_sigterm(tmp_path: Path):
    write_small_model(tmp_path / "weights")
    port = free_port()
    command = [sys.executable, "-m", "personalive", "serve", "--weights", str(tmp_path / "weights")]
    command += ["--device", "cpu", "--port", str(port), "--self-signed", "--token", "secret"]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        shown = process.stdout.readline()
        assert re.search(rf"https://127\.0\.0\.1:{port}/#token=secret", shown), shown
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with httpx2.Client(base_url=f"https://127.0.0.1:{port}", verify=context) as http:

            def ready() -> dict | None:
                time.sleep(0.2)  # more often would be too many requests
                try:
                    status = http.get("/api/status").json()
                except httpx2.TransportError:
                    return None
                return status if status["state"] == "ready" else None

            assert wait_until(ready)["model"] == "weights"  # not where they lie
            assert http.post("/api/sessions", json={}).json()["error"]["kind"] == "wrong_token"
            opened = http.post("/api/sessions", json={}, headers={"Authorization": "Bearer secret"})
            assert opened.status_code == 201
            assert "<title>PersonaLive" in http.get("/").text
            assert json.loads(http.get("/openapi.json").text)["info"]["title"] == "PersonaLive"
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
