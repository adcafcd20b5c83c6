"""Certificates of any time and for any name, in the folder that a device reads; what `isthmus certs init` never makes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(timezone.utc).replace(microsecond=0)
DAYS = 365
"""How long a certificate holds, from a day before its `days`."""
SERVED_AS = "localhost"


def made(folder: Path, *, server_days: int = 0, device_days: int = 0, name: str = SERVED_AS) -> grpc.ServerCredentials:
    """Write a device's three files; the server's side, for `name`, is returned. Days are from today on."""
    authority_key, server_key, device_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    authority = _certificate("authority", authority_key, None, authority_key, days=-1, holds=20_000)
    server = _certificate(name, server_key, authority, authority_key, days=server_days)
    device = _certificate("device", device_key, authority, authority_key, days=device_days)
    for file, content in (
        ("ca.pem", _pem(authority)),
        ("device.pem", _pem(device)),
        ("device.key", _key_pem(device_key)),
    ):
        (folder / file).write_bytes(content)
    return grpc.ssl_server_credentials(
        [(_key_pem(server_key), _pem(server))], _pem(authority), require_client_auth=True
    )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
    authority_key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    holds: int = DAYS,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = NOW + timedelta(days=days - 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=holds))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
