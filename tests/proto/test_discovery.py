"""What a server says of itself by mDNS, and who turns to it."""

from __future__ import annotations

import pytest

from isthmus.proto.discovery import MOST_BUNDLES, fits, properties

ONE, OTHER = b"\x01" * 32, b"\x02" * 32


def told(*hashes: bytes, codec_version: int = 4) -> dict[bytes, bytes | None]:
    """As it comes out of a TXT record."""
    return {key.encode(): value.encode() for key, value in properties(hashes, codec_version=codec_version).items()}


def test_a_device_turns_to_who_serves_its_bundle() -> None:
    assert fits(told(ONE), ONE, codec_version=4)
    assert fits(told(OTHER, ONE), ONE, codec_version=4)
    assert not fits(told(OTHER), ONE, codec_version=4)
    assert not fits(told(), ONE, codec_version=4)
    assert not fits(told(ONE, codec_version=5), ONE, codec_version=4)


@pytest.mark.parametrize(
    "nonsense", [{}, {b"codec": None}, {b"codec": b"4", b"bundle0": None}, {b"bundle0": b"\xff" * 200}]
)
def test_nonsense_is_nobody(nonsense: dict[bytes, bytes | None]) -> None:
    assert not fits(nonsense, ONE, codec_version=4)


def test_very_many_bundles_fit_into_a_packet() -> None:
    record = properties([bytes([n]) * 32 for n in range(200)], codec_version=4)
    assert len(record) == MOST_BUNDLES + 1
    assert all(len(f"{key}={value}") <= 255 for key, value in record.items())
    assert sum(len(f"{key}={value}") + 1 for key, value in record.items()) < 1300
