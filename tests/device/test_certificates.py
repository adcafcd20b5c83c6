"""A device's certificates: what they say of their time, and files that change under a running agent."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.device.certificates import Certificates, validity
from isthmus.proto.errors import SecurityError
from made_certificates import NOW, made


@pytest.mark.parametrize("days", [-2000, 0, 10_000])
def test_the_time_of_a_certificate_is_read_as_the_library_reads_it(tmp_path: Path, days: int) -> None:
    made(tmp_path, device_days=days)  # before and after 2050, when times are written in another form
    for name in ("ca.pem", "device.pem"):
        pem = (tmp_path / name).read_bytes()
        parsed = x509.load_pem_x509_certificate(pem)
        assert validity(pem) == (parsed.not_valid_before_utc, parsed.not_valid_after_utc)
        assert validity(b"some words\n" + pem + pem) == validity(pem)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_refused(raw: bytes) -> None:
    import base64

    with pytest.raises(ValueError, match=r"."):
        validity(raw)
    with pytest.raises(ValueError, match=r"."):
        validity(b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(raw) + b"\n-----END CERTIFICATE-----\n")


def test_the_clock_is_compared_with_what_we_show_and_trust(tmp_path: Path) -> None:
    made(tmp_path)
    certificates = Certificates(tmp_path)
    assert certificates.wrong_at(datetime.now(timezone.utc)) == ""
    assert certificates.wrong_at(datetime(1970, 1, 1, tzinfo=timezone.utc)).startswith("ca.pem holds from ")
    assert certificates.wrong_at(NOW + timedelta(days=1000)).startswith("device.pem held until ")


def test_files_are_read_anew_when_they_have_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path)
    certificates = Certificates(tmp_path)

    def version() -> int:
        certificates.look()
        return certificates.version

    assert version() == 0
    (tmp_path / "device.pem").rename(tmp_path / "aside")
    assert [version() for _ in range(3)] == [0, 0, 0]
    assert caplog.text.count("going on with what was read before") == 1
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    made(tmp_path)
    assert [version(), version()] == [1, 1]


def test_a_file_that_is_missing_at_the_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match=r"ca\.pem"):
        Certificates(tmp_path)
