"""Who may talk to this server: those whom a private authority gave a certificate, or, spelled out, anybody in plaintext.

The authority is a folder. `ca` signs and stays where it is safe; `server` and each of `devices` hold what one machine needs.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isthmus.edge_server.certificates import REVOKED, Certificates, revoked_names
from isthmus.edge_server.config import LOOPBACK, ServerConfig, split_address
from isthmus.proto.errors import SecurityError
from isthmus.proto.security import (
    BALANCER,
    BALANCER_NAME,
    CA,
    CA_KEY,
    DEVICE,
    DEVICE_KEY,
    FIRST_DEVICE,
    SERVER,
    SERVER_KEY,
    SHARED_NAME,
    part,
)

log = logging.getLogger(__name__)

CA_DAYS, LEAF_DAYS = 3650, 825
SKEW = timedelta(days=1)
"""Certificates hold from a day ago: a small board's clock may be behind before it has found a time server."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A device's name: a folder's, a client id and the common name of a certificate, which holds 64 characters."""
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


def certificates(config: ServerConfig) -> Certificates | None:
    """The server's certificates; None for plaintext that was asked for. Raises SecurityError otherwise."""
    if config.certs is not None:
        return Certificates(config.certs)
    if config.insecure:
        if split_address(config.listen)[0] not in LOOPBACK:
            log.warning("%s: plaintext: whoever reaches this address can send frames and read answers", config.listen)
        return None
    raise SecurityError(
        "server: neither certificates nor plaintext; run `isthmus certs init FOLDER` and give --certs FOLDER, "
        "or spell out --insecure"
    )


def init(folder: str | Path, hosts: Iterable[str]) -> list[Path]:
    """Make a new authority, a server's certificate and that of a first device, named `device`; returns the files.

    `hosts` are the names and IP addresses by which devices reach the server; loopback is always among them. Keys are
    readable by their owner only. Raises SecurityError rather than overwrite anything.
    """
    folder, now = Path(folder), datetime.now(timezone.utc)
    parts = "ca", "server", "devices"
    for name in (*parts, CA, CA_KEY, SERVER, SERVER_KEY, DEVICE, DEVICE_KEY):
        if (folder / name).exists():
            raise SecurityError(f"{folder / name}: exists already; choose another folder, or delete it first")
    key = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(_name("isthmus authority"), key, now)
    server, server_key = _leaf("isthmus server", ca, key, ExtendedKeyUsageOID.SERVER_AUTH, now=now, hosts=hosts)
    try:
        return [
            *_write(folder / "ca", {CA: _pem(ca), CA_KEY: _key_pem(key)}),
            *_write(folder / "server", {CA: _pem(ca), SERVER: _pem(server), SERVER_KEY: _key_pem(server_key)}),
            *add_device(folder, FIRST_DEVICE),
        ]
    except SecurityError:  # half of it would be in the way of a second try
        for name in parts:
            shutil.rmtree(folder / name, ignore_errors=True)
        raise


def add_device(folder: str | Path, name: str) -> list[Path]:
    """Make a certificate for one more device, whose client id must be this name; returns the files.

    Raises SecurityError for a name that is none, is revoked or has a certificate, and where the authority's key is not.
    """
    folder = Path(folder)
    _check_name(name)
    if name in revoked_names(part(folder, "server")):
        raise SecurityError(f"{name}: is revoked; choose another name")
    ca, key = _read_authority(folder)
    now = datetime.now(timezone.utc)
    device, device_key = _leaf(name, ca, key, ExtendedKeyUsageOID.CLIENT_AUTH, now=now)
    files = {CA: _pem(ca), DEVICE: _pem(device), DEVICE_KEY: _key_pem(device_key)}
    return _write(folder / "devices" / name, files)


def add_balancer(folder: str | Path, hosts: Iterable[str]) -> list[Path]:
    """Make the certificate of a balancer that ends the devices' TLS and speaks for them to the servers; returns the files.

    `hosts` are the names and IP addresses by which devices reach it. Whoever has its key can be any device to a server.
    Raises SecurityError where it is there already, and where the authority's key is not.
    """
    folder, now = Path(folder), datetime.now(timezone.utc)
    ca, ca_key = _read_authority(folder)
    both = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    balancer, key = _leaf(BALANCER_NAME, ca, ca_key, *both, now=now, hosts=hosts)
    return _write(folder / "balancer", {CA: _pem(ca), BALANCER: _pem(balancer) + _key_pem(key)})


def revoke(folder: str | Path, name: str) -> Path:
    """Have a server that reads this folder turn a device away, for good; returns the list. Raises SecurityError."""
    if name != SHARED_NAME:
        _check_name(name)
    place = part(folder, "server")
    path = place / REVOKED
    names = revoked_names(place) | {name}
    if not (place / SERVER).exists():
        raise SecurityError(f"{place / SERVER}: is not there; --certs names the folder of the server or of all")
    try:
        _replace(path, "".join(f"{each}\n" for each in sorted(names)).encode())
    except OSError as error:
        raise SecurityError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise SecurityError(f"{name}: is no name; use up to 64 letters, digits, dots, dashes and underscores")


def _read_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    place = folder / "ca" if (folder / "ca").is_dir() else folder  # older folders keep all in one
    try:
        ca = x509.load_pem_x509_certificate((place / CA).read_bytes())
        key = serialization.load_pem_private_key((place / CA_KEY).read_bytes(), None)
    except OSError as error:
        raise SecurityError(
            f"{error.filename}: {error.strerror}; --certs names the folder that `isthmus certs init` made"
        ) from error
    except (ValueError, TypeError) as error:
        raise SecurityError(f"{place}: {CA} or {CA_KEY} is damaged ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SecurityError(f"{place / CA_KEY}: not a key that `isthmus certs init` made")
    return ca, key


def _authority(name: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    builder = _builder(name, name, key, now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    return builder.sign(key, hashes.SHA256())


def _leaf(
    name: str,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    *purposes: x509.ObjectIdentifier,
    now: datetime,
    hosts: Iterable[str] = (),
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), ca.subject, key, now, LEAF_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage("digital_signature"), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = builder.add_extension(authority, critical=False)
    if ExtendedKeyUsageOID.SERVER_AUTH in purposes:
        alternatives = [_alternative(host) for host in dict.fromkeys((*hosts, *LOOPBACK))]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(ca_key, hashes.SHA256()), key


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


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Make a folder of these files, whole or not at all. Raises SecurityError rather than touch one that is there."""
    if folder.exists():
        raise SecurityError(f"{folder}: exists already; choose another name, or delete it first")
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for name, content in files.items():
            mode = 0o600 if b"PRIVATE KEY" in content else 0o644
            with os.fdopen(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        scratch.chmod(0o755)
        scratch.rename(folder)
    except OSError as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        raise SecurityError(f"{folder}: cannot be written: {error.strerror}") from error
    return [folder / name for name in files]


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads it sees the old or the new. Raises OSError."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
