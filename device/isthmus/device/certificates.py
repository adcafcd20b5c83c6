"""A device's certificate: read anew when its files change, and compared with the clock when a connection fails."""

from __future__ import annotations

import logging
import ssl
from datetime import datetime, timezone
from pathlib import Path

import grpc

from isthmus.proto.errors import SecurityError
from isthmus.proto.security import FILES, part, read

log = logging.getLogger(__name__)

AUTHORITY, CERTIFICATE, _ = FILES["device"]


class Certificates:
    """What a device shows and whom it trusts, from one folder."""

    def __init__(self, folder: str | Path) -> None:
        """Read the folder's files. Raises SecurityError where one is missing."""
        self._folder = part(folder, "device")
        self._files, self._unread = read(folder, "device"), ""
        self.version = 0
        """How often other files were read."""

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials of a channel that trusts servers of the same authority only."""
        authority, certificate, key = self._files
        return grpc.ssl_channel_credentials(authority, key, certificate)

    def look(self) -> None:
        """Read the files again. Files that cannot be read, as half-way through a renewal, change nothing."""
        try:
            files = read(self._folder, "device")
        except SecurityError as error:
            if str(error) != self._unread:  # it is looked at before every attempt to connect
                log.warning("%s; going on with what was read before", error)
            self._unread = str(error)
            return
        if files != self._files:
            log.warning("%s: certificates read anew, for the next connection", self._folder)
            self.version += 1
        self._files, self._unread = files, ""

    def wrong_at(self, now: datetime) -> str:
        """Which of the certificates does not hold at `now`, and since or until when; empty where all do."""
        for name, pem in zip((AUTHORITY, CERTIFICATE), self._files, strict=False):
            try:
                begins, ends = validity(pem)
            except ValueError as error:
                return f"{name} cannot be read ({error})"
            if now < begins:
                return f"{name} holds from {begins:%Y-%m-%d %H:%M} UTC on"
            if now > ends:
                return f"{name} held until {ends:%Y-%m-%d %H:%M} UTC"
        return ""


def validity(pem: bytes) -> tuple[datetime, datetime]:
    """The first and the last moment at which a PEM certificate holds (RFC 5280, 4.1.2.5). ValueError when it is none."""
    try:
        first = pem.decode("ascii").partition("-----END CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(first[0][first[0].index("-----BEGIN") :] + first[1])
        at = _value(der, _value(der, 0)[0])[0]  # within the certificate, within its signed part
        if der[at] == 0xA0:  # the version, which is optional
            at = _value(der, at)[1]
        for _skipped in ("serial number", "signature", "issuer"):
            at = _value(der, at)[1]
        begins = _value(der, at)[0]
        return _time(der, begins), _time(der, _value(der, begins)[1])
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a certificate: {error}") from error


def _value(der: bytes, at: int) -> tuple[int, int]:
    """The index at which the value of the DER element at `at` begins, and the one at which it ends."""
    length, begins = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, begins = int.from_bytes(der[begins : begins + size], "big"), begins + size
    return begins, begins + length


def _time(der: bytes, at: int) -> datetime:
    begins, ends = _value(der, at)
    form = "%y%m%d%H%M%SZ" if der[at] == 0x17 else "%Y%m%d%H%M%SZ"  # UTCTime until 2049, GeneralizedTime after
    return datetime.strptime(der[begins:ends].decode("ascii"), form).replace(tzinfo=timezone.utc)
