"""A server's certificate and the list of revoked names, read anew when their files change: no restart is needed.

Whoever is connected already stays connected under the certificate of then, unless his name was revoked.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from isthmus.proto.errors import SecurityError
from isthmus.proto.security import FILES, SERVER, SERVER_KEY, part, read

log = logging.getLogger(__name__)

REVOKED = "revoked.txt"
"""Beside the server's certificate: names, one a line, that are turned away."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""What of each file changes with its content: its inode, size and time of change; None where it is not there."""


class Certificates:
    """What a server shows, and whom it turns away, from one folder."""

    def __init__(self, folder: str | Path) -> None:
        """Raises SecurityError where a file is missing or the key is another certificate's."""
        self._folder = part(folder, "server")
        self._stamp = self._look_at_files()
        self._shown = _configuration(self._folder)
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        self.revoked = revoked_names(self._folder)

    def credentials(self) -> grpc.ServerCredentials:
        """For a port: only devices with a certificate of the same authority get in, and each sees the newest of ours."""
        return grpc.dynamic_ssl_server_credentials(
            self._shown,
            self._fetch,  # type: ignore[arg-type]  # it may say that nothing changed; the stubs do not know
            require_client_authentication=True,
        )

    def look(self, *, again: bool = False) -> bool:
        """Read the files if they changed, or `again` anyway; whether anything was read.

        Files that do not fit together, as half-way through a renewal, change nothing; the log says so.
        """
        stamp = self._look_at_files()
        if stamp == self._stamp and not again:
            return False
        self._stamp = stamp
        try:
            fresh, revoked = _configuration(self._folder), revoked_names(self._folder)
        except SecurityError as error:
            log.warning("%s; going on with what was read before", error)
            return False
        self._fresh, self.revoked = fresh, revoked
        log.info("%s: read anew, %d names are revoked", self._folder, len(revoked))
        return True

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks for at every connection, in a thread of its own; None is no change."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def _look_at_files(self) -> Stamp:
        return tuple(_stamp(self._folder / name) for name in (*FILES["server"], REVOKED))


def revoked_names(folder: Path) -> frozenset[str]:
    """The names in a folder's list; none without one. Raises SecurityError when it cannot be read."""
    path = folder / REVOKED
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise SecurityError(f"{path}: cannot be read ({error}); names are expected, one a line") from error
    return frozenset(name for line in lines if (name := line.partition("#")[0].strip()))


def _configuration(folder: Path) -> grpc.ServerCertificateConfiguration:
    authority, certificate, key = read(folder, "server")
    try:
        shown = x509.load_pem_x509_certificate(certificate).public_key()
        owned = load_pem_private_key(key, None).public_key()
        x509.load_pem_x509_certificates(authority)
    except (ValueError, TypeError) as error:
        names = ", ".join(FILES["server"])
        raise SecurityError(f"{folder}: {names}: not PEM without a password ({error}); copy them again") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if shown.public_bytes(*form) != owned.public_bytes(*form):
        raise SecurityError(f"{folder / SERVER}: does not belong to {SERVER_KEY}; copy both from one folder")
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None
