"""Who may talk to this server: a private authority with a server and a device certificate, or plaintext spelled out."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isthmus.edge_server.config import ServerConfig, split_address
from isthmus.proto.errors import SecurityError
from isthmus.proto.security import CA, CA_KEY, DEVICE, DEVICE_KEY, SERVER, SERVER_KEY, server_credentials

log = logging.getLogger(__name__)

CA_DAYS, LEAF_DAYS = 3650, 825
SKEW = timedelta(days=1)
"""Certificates hold from a day ago: a small board's clock may be behind before it has found a time server."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
KEY_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """The server's credentials; None for plaintext that was asked for. Raises SecurityError otherwise."""
    if config.certs is not None:
        return server_credentials(config.certs)
    if config.insecure:
        if split_address(config.listen)[0] not in LOOPBACK:
            log.warning("%s: plaintext: whoever reaches this address can send frames and read answers", config.listen)
        return None
    raise SecurityError(
        "server: neither certificates nor plaintext; run `isthmus certs init FOLDER` and give --certs FOLDER, "
        "or spell out --insecure"
    )


def init(folder: str | Path, hosts: Iterable[str]) -> list[Path]:
    """Write a new authority and its server and device certificates; returns the files.

    `hosts` are the names and IP addresses by which devices reach the server; loopback is always among them. Keys are
    readable by their owner only. `ca.key` signs further devices: keep it off the server. Raises SecurityError rather
    than overwrite a file.
    """
    folder = Path(folder)
    names = (CA, CA_KEY, SERVER, SERVER_KEY, DEVICE, DEVICE_KEY)
    if present := [name for name in names if (folder / name).exists()]:
        raise SecurityError(f"{folder / present[0]}: exists already; choose another folder, or delete it first")
    now = datetime.now(timezone.utc)
    ca_key, server_key, device_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    ca_name = _name("isthmus authority")
    ca = _authority(ca_name, ca_key, now)
    server = _leaf("isthmus server", server_key, ca, ca_key, ExtendedKeyUsageOID.SERVER_AUTH, now, hosts=hosts)
    device = _leaf("isthmus device", device_key, ca, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH, now)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        (CA, CA_KEY, ca, ca_key),
        (SERVER, SERVER_KEY, server, server_key),
        (DEVICE, DEVICE_KEY, device, device_key),
    ]
    for certificate_name, key_name, certificate, key in parts:
        (folder / certificate_name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(folder / key_name, key)
    return [folder / name for name in names]


def _authority(name: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    builder = _builder(name, name, key, now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    return builder.sign(key, hashes.SHA256())


def _leaf(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    purpose: x509.ObjectIdentifier,
    now: datetime,
    hosts: Iterable[str] = (),
) -> x509.Certificate:
    builder = _builder(_name(name), ca.subject, key, now, LEAF_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage("digital_signature"), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = builder.add_extension(authority, critical=False)
    if purpose == ExtendedKeyUsageOID.SERVER_AUTH:
        alternatives = [_alternative(host) for host in dict.fromkeys((*hosts, *LOOPBACK))]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise SecurityError(f"{host}: neither an IP address nor a host name; write it in ASCII") from error


def _key_usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in KEY_USES})


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
