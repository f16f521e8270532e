"""Beyond loopback the control API speaks TLS, or does not listen at all."""

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from torch.optim import SGD
from trainer.live import live
from trainer.loops import make_model

from autopilot.client import HttpRun, connect
from autopilot.errors import BadInput, Unreachable
from autopilot.schema import Note
from autopilot_trainer import Session

HERE = socket.gethostname()
WITH_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine's, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-keyout",
        str(key),
        "-out",
        str(chain),
    ]
    names = f"subjectAltName=DNS:localhost,DNS:{HERE},IP:127.0.0.1"
    subprocess.run([*command, "-addext", names], check=True, capture_output=True)
    return chain, key


def refusal(tmp_path: Path) -> str:
    """What a session says that does not come to be."""
    model = make_model()
    with pytest.raises(BadInput) as refused:
        Session(model, SGD(model.parameters(), lr=0.1), run_dir=tmp_path / "run")
    return str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "2001:db8::1"])
def test_a_session_that_would_be_open_to_the_network_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("AUTOPILOT_HOST", host)
    said = refusal(tmp_path)
    assert said.startswith(f"the control API cannot listen on {host}: ")
    assert ("loopback only without TLS" in said) != (host in ("0.0.0.0", "::"))


def test_half_of_a_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPILOT_TLS_CERT", str(tmp_path / "chain.pem"))
    assert "give both, or neither" in refusal(tmp_path)
    monkeypatch.setenv("AUTOPILOT_TLS_KEY", str(tmp_path / "key.pem"))
    assert "No such file" in refusal(tmp_path)
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("nothing\n")
    assert "cannot use" in refusal(tmp_path)


@WITH_OPENSSL
def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
) -> None:
    chain, key = certificate
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:words"]
    subprocess.run([*command, "-out", str(locked)], check=True, capture_output=True)
    monkeypatch.setenv("AUTOPILOT_TLS_CERT", str(chain))
    monkeypatch.setenv("AUTOPILOT_TLS_KEY", str(locked))
    assert "the key is encrypted" in refusal(tmp_path)


@WITH_OPENSSL
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", HERE])
def test_a_run_with_a_certificate_is_steered_over_tls_by_the_name_it_is_known_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path], host: str
) -> None:
    chain, key = certificate
    monkeypatch.setenv("AUTOPILOT_HOST", host)
    monkeypatch.setenv("AUTOPILOT_TLS_CERT", str(chain))
    monkeypatch.setenv("AUTOPILOT_TLS_KEY", str(key))
    with live(tmp_path) as run:
        assert run.url.startswith(f"https://{host}:")
        with connect(str(run.session.run_dir), "operator", "kim") as person:
            assert person.command((Note(text="over tls"),)).actor == "human:kim"
        monkeypatch.delenv("AUTOPILOT_TLS_CERT")
        with (
            HttpRun(run.url, run.tokens.viewer, attempts=1) as stranger,
            pytest.raises(Unreachable, match="certificate"),
        ):
            stranger.info()
        assert plain(run.url) == b""
        assert over_tls(run.url, chain, "evil.example") == 421
        assert over_tls(run.url, chain, f"{host}:{run.port}") == 200
        run.await_steps(5)


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("https://").rpartition(":")
    return host, int(port)


def plain(url: str) -> bytes:
    """What someone hears who sends a token in the clear."""
    with socket.create_connection(address(url), timeout=20) as connection:
        connection.sendall(b"GET /v1/run HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            return connection.recv(100)
        except ConnectionResetError:
            return b""


def over_tls(url: str, chain: Path, named: str) -> int:
    """The status of an open call that names a host."""
    context = ssl.create_default_context(cafile=chain)
    host, _ = address(url)
    with (
        socket.create_connection(address(url), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {named}\r\n\r\n".encode())
        return int(connection.recv(100).split()[1])
