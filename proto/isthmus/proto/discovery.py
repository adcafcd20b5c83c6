"""How a server says by mDNS (RFC 6762, 6763) that it is there, and with which bundles a device must come. Pure.

The service is `_isthmus._tcp.local.`; its TXT record holds the codec's version and, each under a key of its own, the hashes of
the bundles that are served. What anybody in the network may say is no more than a hint: whoever is found must still take a
hello, over TLS where there are certificates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SERVICE = "_isthmus._tcp.local."
CODEC = "codec"
BUNDLE = "bundle"
MOST_BUNDLES = 16
"""A TXT record should fit into one packet."""


def properties(hashes: Iterable[bytes], *, codec_version: int) -> dict[str, str]:
    """The TXT record of a server of bundles with these SHA-256 hashes; of very many, the first ones."""
    named = {f"{BUNDLE}{number}": sha256.hex() for number, sha256 in enumerate([*hashes][:MOST_BUNDLES])}
    return {CODEC: str(codec_version), **named}


def fits(told: Mapping[bytes, bytes | None], sha256: bytes, *, codec_version: int) -> bool:
    """Whether a device with this bundle should turn to who says so."""
    hashes = {value for key, value in told.items() if key.startswith(BUNDLE.encode())}
    return told.get(CODEC.encode()) == str(codec_version).encode() and sha256.hex().encode() in hashes
