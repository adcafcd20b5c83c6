from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from isthmus.edge_server.config import ServerConfig
from isthmus.edge_server.security import credentials, init
from isthmus.proto import security
from isthmus.proto.errors import SecurityError


def test_init_writes_what_both_halves_read(tmp_path: Path) -> None:
    files = init(tmp_path / "certs", ["edge.local", "192.168.1.20", "::1"])
    assert {file.name for file in files} == {
        "ca.pem", "ca.key", "server.pem", "server.key", "device.pem", "device.key",
    }  # fmt: skip
    security.server_credentials(tmp_path / "certs")
    security.channel_credentials(str(tmp_path / "certs"))


def test_keys_are_their_owners_only(tmp_path: Path) -> None:
    keys = [file for file in init(tmp_path, []) if file.suffix == ".key"]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3


def test_the_server_answers_to_its_hosts_and_to_loopback(tmp_path: Path) -> None:
    init(tmp_path, ["edge.local", "192.168.1.20"])
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edge.local", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.168.1.20", "127.0.0.1", "::1"]


def test_the_authority_signed_both(tmp_path: Path) -> None:
    init(tmp_path, [])
    ca, server, device = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        for name in ("ca.pem", "server.pem", "device.pem")
    )
    server.verify_directly_issued_by(ca)
    device.verify_directly_issued_by(ca)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "device.key").write_text("precious")
    with pytest.raises(SecurityError, match=r"device\.key: exists already"):
        init(tmp_path, [])
    assert (tmp_path / "device.key").read_text() == "precious"
    assert not (tmp_path / "ca.pem").exists()


def test_a_host_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="neither an IP address nor a host name"):
        init(tmp_path, ["köln.local"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ca.pem", "server.pem", "server.key"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    init(tmp_path, [])
    (tmp_path / name).unlink()
    with pytest.raises(SecurityError, match=f"{name}: No such file"):
        security.server_credentials(tmp_path)


def test_without_certificates_plaintext_must_be_spelled_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SecurityError, match=r"certs init.*--insecure"):
        credentials(ServerConfig())
    assert credentials(ServerConfig(insecure=True)) is None
    assert not caplog.records
    assert credentials(ServerConfig(insecure=True, listen="0.0.0.0:0")) is None
    assert "plaintext" in caplog.text
    init(tmp_path, [])
    assert credentials(ServerConfig(certs=str(tmp_path))) is not None
