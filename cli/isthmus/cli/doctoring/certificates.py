"""Certificates: dates, who may read the keys, and whether the files fit together, by a handshake in memory."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from isthmus.cli.doctoring.finding import Finding, failure, ok, warning
from isthmus.proto.security import CA, FILES, Half, part

SOON = timedelta(days=30)
RENEW = "make new ones with `isthmus certs`, and copy them before that day"


@dataclass(frozen=True)
class Pem:
    """One certificate's file."""

    name: str
    begins: datetime | None = None
    ends: datetime | None = None
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """A half's folder at one moment."""

    folder: str
    half: Half
    now: datetime
    pems: tuple[Pem, ...] = ()
    key_is_open: bool = False
    """Whether others than owner and group may read the key."""
    misfit: str = ""
    """Why a handshake between these files fails, dates apart; '' where it does not."""
    host: str | None = None
    """The name by which the server is called."""


def facts(folder: str, half: Half, *, host: str | None = None) -> Facts:
    """The files of a half in a folder of `isthmus certs`; for the server's, whether they name `host`."""
    place, now = part(folder, half), datetime.now(timezone.utc)
    authority, certificate, key = (place / name for name in FILES[half])
    return Facts(
        str(place),
        half,
        now,
        (_pem(authority), _pem(certificate)),
        _is_open(key),
        _misfit(authority, certificate, key, half, host),
        host,
    )


def _pem(path: Path) -> Pem:
    from isthmus.device.certificates import validity

    try:
        begins, ends = validity(path.read_bytes())
    except (OSError, ValueError) as error:
        return Pem(path.name, error=getattr(error, "strerror", None) or str(error))
    return Pem(path.name, begins, ends)


def _is_open(key: Path) -> bool:
    try:
        return bool(key.stat().st_mode & 0o007)
    except OSError:
        return False


def _misfit(authority: Path, certificate: Path, key: Path, half: Half, host: str | None) -> str:
    """Shake hands with ourselves: a server checks the device's files, a device the server's, and by which name it is called."""
    try:
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server.load_cert_chain(certificate, key)
        client.check_hostname = half == "server" and host is not None
        judge = client if half == "server" else server
        if half == "device":
            client.load_cert_chain(certificate, key)
            client.verify_mode, server.verify_mode = ssl.CERT_NONE, ssl.CERT_REQUIRED
        judge.load_verify_locations(authority)
        _shake_hands(server, client, host if client.check_hostname else None)
    except ssl.SSLCertVerificationError as error:
        return "" if error.verify_code in (9, 10) else error.verify_message  # not yet valid, expired: judged by dates
    except (ssl.SSLError, OSError) as error:
        return getattr(error, "reason", None) or error.strerror or str(error)
    return ""


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str | None) -> None:
    """Raises SSLError for what either of them refuses. TLS 1.2, where both sides are done at the same time."""
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass


def findings(seen: Facts) -> list[Finding]:
    """Judge them."""
    what = f"certificates {seen.folder}"
    found = [found for pem in seen.pems for found in _dates(what, pem, seen.now)]
    if any(pem.error for pem in seen.pems):
        return found
    if seen.misfit:
        found.append(_misfitting(what, seen))
    if seen.key_is_open:
        key = FILES[seen.half][2]
        found.append(warning(what, f"{key} may be read by everybody here", f"chmod o= {seen.folder}/{key}"))
    last = min(pem.ends for pem in seen.pems if pem.ends is not None)
    return found or [ok(what, f"fit together, and hold until {last:%Y-%m-%d}")]


def _misfitting(what: str, seen: Facts) -> Finding:
    if "mismatch" in seen.misfit.lower() and seen.host is not None and "key" not in seen.misfit.lower():
        return failure(what, f"do not name {seen.host}", f"make them with `isthmus certs init --host {seen.host}`")
    return failure(
        what, f"do not fit together ({seen.misfit})", "copy all files of one folder of one `isthmus certs init`"
    )


def _dates(what: str, pem: Pem, now: datetime) -> list[Finding]:
    if pem.begins is None or pem.ends is None:
        return [
            failure(what, f"{pem.name}: {pem.error}", f"copy {CA} and the half's two files of `isthmus certs` there")
        ]
    clock = f"this clock says {now:%Y-%m-%d %H:%M} UTC"
    if now < pem.begins:
        return [failure(what, f"{pem.name} holds from {pem.begins:%Y-%m-%d %H:%M} on, {clock}", "set the clock")]
    if now > pem.ends:
        return [
            failure(what, f"{pem.name} held until {pem.ends:%Y-%m-%d %H:%M}, {clock}", "set the clock, or " + RENEW)
        ]
    if now > pem.ends - SOON:
        return [warning(what, f"{pem.name} holds until {pem.ends:%Y-%m-%d} only", RENEW)]
    return []
