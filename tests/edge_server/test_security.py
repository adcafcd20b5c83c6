from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isthmus.edge_server.certificates import REVOKED, Certificates, revoked_names
from isthmus.edge_server.config import ServerConfig
from isthmus.edge_server.security import add_balancer, add_device, certificates, init, revoke
from isthmus.proto.errors import SecurityError
from isthmus.proto.security import channel_credentials, part, read


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def name_in(path: Path) -> str:
    (name,) = certificate(path).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def test_init_writes_what_each_machine_needs_apart(tmp_path: Path) -> None:
    files = init(tmp_path / "certs", ["edge.local", "192.168.1.20", "::1"])
    assert [str(file.relative_to(tmp_path / "certs")) for file in files] == [
        "ca/ca.pem", "ca/ca.key",
        "server/ca.pem", "server/server.pem", "server/server.key",
        "devices/device/ca.pem", "devices/device/device.pem", "devices/device/device.key",
    ]  # fmt: skip
    assert all(file.exists() for file in files)
    for folder in (tmp_path / "certs", tmp_path / "certs" / "server"):
        Certificates(folder).credentials()
    for folder in (tmp_path / "certs", tmp_path / "certs" / "devices" / "device"):
        channel_credentials(str(folder))


def test_keys_are_their_owners_only(tmp_path: Path) -> None:
    keys = [file for file in init(tmp_path, []) if file.suffix == ".key"]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3


def test_the_server_answers_to_its_hosts_and_to_loopback(tmp_path: Path) -> None:
    init(tmp_path, ["edge.local", "192.168.1.20"])
    server = certificate(tmp_path / "server" / "server.pem")
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edge.local", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.168.1.20", "127.0.0.1", "::1"]


def test_the_authority_signed_all(tmp_path: Path) -> None:
    init(tmp_path, [])
    add_device(tmp_path, "cam0")
    ca = certificate(tmp_path / "ca" / "ca.pem")
    for leaf in ("server/server.pem", "devices/device/device.pem", "devices/cam0/device.pem"):
        certificate(tmp_path / leaf).verify_directly_issued_by(ca)
    assert name_in(tmp_path / "devices" / "device" / "device.pem") == "device"
    assert name_in(tmp_path / "devices" / "cam0" / "device.pem") == "cam0"


@pytest.mark.parametrize("name", ["device.key", "server.pem", "ca.key", "ca", "server", "devices"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(SecurityError, match=f"{name}: exists already"):
        init(tmp_path, [])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_a_device_has_one_certificate(tmp_path: Path) -> None:
    init(tmp_path, [])
    before = [path.read_bytes() for path in add_device(tmp_path, "cam0")]
    with pytest.raises(SecurityError, match="cam0: exists already"):
        add_device(tmp_path, "cam0")
    assert [
        (tmp_path / "devices" / "cam0" / name).read_bytes() for name in ("ca.pem", "device.pem", "device.key")
    ] == before


@pytest.mark.parametrize("name", ["", ".", "..", "../cam0", "a/b", "cam 0", "cam\n0", "x" * 65, "Tür"])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    init(tmp_path, [])
    for act in (add_device, revoke):
        with pytest.raises(SecurityError, match="is no name"):
            act(tmp_path, name)


def test_a_host_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="neither an IP address nor a host name"):
        init(tmp_path, ["köln.local"])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_in_the_way_of_a_second_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty ca.pem once was, and a traceback besides."""

    def full(folder: Path, *more: Any, **options: Any) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(SecurityError, match=r"ca: cannot be written: No space left on device"):
            init(tmp_path, [])
    assert not list(tmp_path.iterdir())
    init(tmp_path, [])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "isthmus.cli", "certs", "init", str(tmp_path / "file" / "certs")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == SecurityError.exit_code
    assert "cannot be written: Not a directory" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_without_the_authoritys_key_there_are_no_further_devices(tmp_path: Path) -> None:
    init(tmp_path, [])
    with pytest.raises(SecurityError, match=r"ca\.pem|ca\.key"):
        add_device(tmp_path / "server", "cam0")
    (tmp_path / "ca" / "ca.key").write_text("not PEM")
    with pytest.raises(SecurityError, match=r"ca\.key is damaged"):
        add_device(tmp_path, "cam0")
    assert [path.name for path in (tmp_path / "devices").iterdir()] == ["device"]


def test_a_revoked_name_is_listed_once_and_given_to_nobody(tmp_path: Path) -> None:
    init(tmp_path, [])
    for _ in range(2):
        assert revoke(tmp_path, "cam0") == tmp_path / "server" / REVOKED
    revoke(tmp_path / "server", "cam1")  # as on the server, which has only its own part
    assert (tmp_path / "server" / REVOKED).read_text() == "cam0\ncam1\n"
    with pytest.raises(SecurityError, match="cam0: is revoked"):
        add_device(tmp_path, "cam0")
    with pytest.raises(SecurityError, match=r"server\.pem: is not there"):
        revoke(tmp_path / "nowhere", "cam0")


def test_the_list_may_be_written_by_hand(tmp_path: Path) -> None:
    assert revoked_names(tmp_path) == frozenset()
    (tmp_path / REVOKED).write_text("# lost on the train\n cam0 \n\ncam1 # stolen\n")
    assert revoked_names(tmp_path) == {"cam0", "cam1"}
    (tmp_path / REVOKED).write_bytes(b"\xff\xfe")
    with pytest.raises(SecurityError, match=r"revoked\.txt: cannot be read"):
        revoked_names(tmp_path)


@pytest.mark.parametrize("name", ["ca.pem", "server.pem", "server.key"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    init(tmp_path, [])
    path = tmp_path / "server" / name
    path.write_text("damaged")
    with pytest.raises(SecurityError, match="not PEM"):
        Certificates(tmp_path)
    path.unlink()
    with pytest.raises(SecurityError, match=f"{name}: No such file"):
        Certificates(tmp_path / "server")


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    init(tmp_path / "a", [])
    init(tmp_path / "b", [])
    (tmp_path / "b" / "server" / "server.key").replace(tmp_path / "a" / "server" / "server.key")
    with pytest.raises(SecurityError, match=r"server\.pem: does not belong to server\.key"):
        Certificates(tmp_path / "a")


def test_a_look_reads_only_what_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    init(tmp_path, [])
    shown = Certificates(tmp_path)
    assert not shown.look()
    revoke(tmp_path, "cam0")
    assert shown.look()
    assert shown.revoked == {"cam0"}
    assert not shown.look()
    assert shown.look(again=True)
    (tmp_path / "server" / "server.key").unlink()
    assert not shown.look()
    assert not shown.look()
    assert caplog.text.count("server.key: No such file") == 1, "said once, not every second"
    assert shown.revoked == {"cam0"}


def test_a_half_finds_its_part_of_a_folder_of_both(tmp_path: Path) -> None:
    init(tmp_path, [])
    assert part(tmp_path, "server") == tmp_path / "server"
    assert part(tmp_path, "device") == tmp_path / "devices" / "device"
    assert read(tmp_path, "device") == read(tmp_path / "devices" / "device", "device")


def test_without_certificates_plaintext_must_be_spelled_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SecurityError, match=r"certs init.*--insecure"):
        certificates(ServerConfig())
    assert certificates(ServerConfig(insecure=True)) is None
    assert not caplog.records
    assert certificates(ServerConfig(insecure=True, listen="0.0.0.0:0")) is None
    assert "plaintext" in caplog.text
    init(tmp_path, [])
    assert certificates(ServerConfig(certs=str(tmp_path))) is not None


def test_a_balancer_s_certificate_opens_both_ways_and_its_key_is_its_owner_s(tmp_path: Path) -> None:
    init(tmp_path / "certs", [])
    authority, both = add_balancer(tmp_path / "certs", ["edge.local"])
    assert (authority.name, both.name) == ("ca.pem", "balancer.pem")
    assert both.stat().st_mode & 0o777 == 0o600
    found = certificate(both)
    uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "edge.local" in names.get_values_for_type(x509.DNSName)
    with pytest.raises(SecurityError, match="exists already"):
        add_balancer(tmp_path / "certs", [])
