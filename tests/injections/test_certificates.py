"""Injections of certificates, identity and the wall clock, over mutual TLS."""

from __future__ import annotations

import datetime
import ipaddress
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from injections.invariants import invariants, quiet
from injections.lab import Agent, Lab, Server
from injections.peers import Peer, hello

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>
#include <sys/time.h>
static long shift(void) {  /* seconds, as the file now says */
    static __thread int inside; long s = 0; FILE *f;
    if (inside) return 0;
    inside = 1; f = fopen(CLOCK_SHIFT, "r"); if (f) { if (fscanf(f, "%ld", &s) != 1) s = 0; fclose(f); } inside = 0;
    return s;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, t);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec += shift();
    return code;
}
int gettimeofday(struct timeval *t, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int code = real(t, zone); t->tv_sec += shift(); return code;
}
time_t time(time_t *out) {
    struct timespec t; clock_gettime(CLOCK_REALTIME, &t); if (out) *out = t.tv_sec; return t.tv_sec;
}
"""
DAY_S = 86_400


def certs(lab: Lab, name: str) -> Path:
    """A folder of certificates of an authority of its own."""
    folder = lab.folder / name
    done = lab.run("certs", "init", str(folder))
    assert done.process.returncode == 0, done.last_words
    return folder


def reissued(
    folder: Path, name: str, *, start_days: float = -1, end_days: float = 800, host: str = "127.0.0.1"
) -> None:
    """Replace a certificate, and its key, by another of the same authority that holds for other days or another host."""
    old_path, ca_key_path = (next(folder.rglob(each)) for each in (f"{name}.pem", "ca.key"))
    authority, old = (
        x509.load_pem_x509_certificate(path.read_bytes()) for path in (next(folder.rglob("ca.pem")), old_path)
    )
    ca_key = serialization.load_pem_private_key(ca_key_path.read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(old.subject).issuer_name(authority.subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + datetime.timedelta(days=start_days))
    builder = builder.not_valid_after(now + datetime.timedelta(days=end_days))
    for extension in old.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName) and name == "server":
            builder = builder.add_extension(x509.SubjectAlternativeName([_named(host)]), critical=False)
        elif not isinstance(extension.value, x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    pem = builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    raw = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, content in ((old_path.with_suffix(".key"), raw), (old_path, pem)):
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def served(lab: Lab, folder: Path, *more: str, **how: Any) -> Server:
    """A server with these certificates."""
    return lab.server("--certs", str(folder), *more, **how)


def shown(lab: Lab, server: Server, folder: Path, *, client_id: str = "device", **how: Any) -> Agent:
    """An agent with these certificates: of its own name."""
    return lab.agent(server.address, "--certs", str(folder), client_id=client_id, **how)


def device_certs(lab: Lab, folder: Path, name: str) -> Path:
    """A folder for one more device of this name."""
    done = lab.run("certs", "add-device", name, "--certs", str(folder))
    assert done.process.returncode == 0, done.last_words
    return folder / "devices" / name


REFUSALS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "another authority": (lambda ours, theirs: None, r"certs init|authority"),
    "expired": (lambda ours, theirs: reissued(theirs, "server", start_days=-9, end_days=-2), r"expired|is over"),
    "not yet valid": (lambda ours, theirs: reissued(theirs, "server", start_days=9), r"not yet valid|holds from"),
    "another host": (lambda ours, theirs: reissued(theirs, "server", host="edge.example"), r"name|host"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_21_refused(lab: Lab, name: str) -> None:
    """21: a server whose certificate is not right is not spoken to; the reason and the way out are in the log, once."""
    make, said = REFUSALS[name]
    ours = certs(lab, "ours")
    theirs = certs(lab, "theirs") if name == "another authority" else ours
    make(ours, theirs)
    server = served(lab, theirs)
    agent = shown(lab, server, ours, frames=90)
    assert agent.wait() == 0
    assert "server" not in agent.sources
    assert re.search(said, agent.log), agent.last_words
    if name in {"expired", "not yet valid"}:
        assert "clock" in agent.log
        assert "one `isthmus certs init`" not in agent.log
    invariants([agent], [], log_lines=15)
    assert server.end() == 0


@pytest.mark.parametrize("secure", ["server", "agent"])
def test_21_plaintext(lab: Lab, secure: str) -> None:
    """21: one half in plaintext, the other not: they do not speak, and the device answers."""
    ours = certs(lab, "ours")
    server = served(lab, ours) if secure == "server" else lab.server()
    agent = shown(lab, server, ours, frames=60) if secure == "agent" else lab.agent(server.address, frames=60)
    assert agent.wait() == 0
    assert "server" not in agent.sources
    assert "certs" in agent.log
    invariants([agent], [], log_lines=15)
    assert server.end() == 0


@pytest.mark.parametrize("by", ["file", "hup"])
def test_21_rotation(lab: Lab, by: str) -> None:
    """21: an authority replaced under both halves is used from then on, without a restart and without a lost answer."""
    ours, fresh = certs(lab, "ours"), certs(lab, "fresh")
    server = served(lab, ours)
    agent = shown(lab, server, ours)
    agent.answered_by("server", 10)
    agent.settle()
    newcomers = device_certs(lab, fresh, "cam1")
    for path in (path for path in fresh.rglob("*") if path.is_file()):
        replaced = ours / path.relative_to(fresh)
        replaced.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, replaced.with_suffix(".new"))
        replaced.with_suffix(".new").replace(replaced)
    if by == "hup":
        for role in (server, agent):
            role.signal(signal.SIGHUP)
    newcomer = shown(lab, server, newcomers, client_id="cam1")
    newcomer.answered_by("server", 5)
    newcomer.settle()
    assert server.end() == 0
    second = served(lab, ours, listen=server.address)
    agent.answered_by("server", 10)
    invariants([agent, newcomer], [second])
    quiet(server)


def test_22_identity(lab: Lab) -> None:
    """22: a certificate speaks for its own name only, and its newest stream replaces the one before."""
    ours = certs(lab, "ours")
    cam0, cam1 = device_certs(lab, ours, "cam0"), device_certs(lab, ours, "cam1")
    server = served(lab, ours, "--max-streams", "4")
    agent = shown(lab, server, cam0, client_id="cam0")
    agent.answered_by("server", 10)
    agent.settle()
    with _secure(server.address, cam1) as own:
        impersonator = Peer(own)
        impersonator.say(hello(client_id="cam0"))
        assert impersonator.ending()[0] in {
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNAUTHENTICATED,
        }
        greedy = [Peer(own).greeted(hello(client_id="cam1")) for _ in range(8)]
        for replaced in greedy[:-1]:
            replaced.ending()
        agent.answered_by("server", 10)
        greedy[-1].close()
    assert agent.connections == 1
    invariants([agent], [server], log_lines=80)


def test_22_revoked(lab: Lab) -> None:
    """22: a revoked certificate is turned away, also in mid-stream; the others are not."""
    ours = certs(lab, "ours")
    cam0, cam1 = device_certs(lab, ours, "cam0"), device_certs(lab, ours, "cam1")
    server = served(lab, ours)
    stays, goes = shown(lab, server, cam0, client_id="cam0"), shown(lab, server, cam1, client_id="cam1")
    for agent in (stays, goes):
        agent.answered_by("server", 5)
        agent.settle()
    done = lab.run("certs", "revoke", "cam1", "--certs", str(ours))
    assert done.process.returncode == 0, done.last_words
    goes.answered_by("exit", 10)
    stays.answered_by("server", 10)
    assert "server" not in goes.sources[-5:]
    assert "revoked" in goes.log
    invariants([stays, goes], [server])


def _secure(address: str, folder: Path) -> grpc.Channel:
    read = [(folder / name).read_bytes() for name in ("ca.pem", "device.key", "device.pem")]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*read))


def shifted_clock(lab: Lab, start_s: int) -> tuple[Path, dict[str, str]]:
    """A file that says by how many seconds the wall clock is wrong, and the environment of the processes that believe it."""
    if shutil.which("cc") is None:
        pytest.skip("cc: not installed; the clock is shifted by a small library in C")
    shift, source, library = (lab.folder / name for name in ("shift", "clock.c", "clock.so"))
    shift.write_text(str(start_s))
    source.write_text(CLOCK.replace("CLOCK_SHIFT", f'"{shift}"'))
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return shift, {"LD_PRELOAD": str(library)}


def test_20_wall_clock(lab: Lab) -> None:
    """20: the wall clock jumps an hour, a year, a month back, to 1970: a stream that is there is not touched by it."""
    shift, environment = shifted_clock(lab, 0)
    ours = certs(lab, "ours")
    server = served(lab, ours, environment=environment)
    agent = shown(lab, server, ours, environment=environment)
    agent.answered_by("server", 10)
    agent.settle()
    for jump_s in (3600, -3600, 365 * DAY_S, -30 * DAY_S, 0):
        shift.write_text(str(jump_s))
        agent.answered_by("server", 8)
    assert agent.connections == 1
    invariants([agent], [server])


def test_20_connecting_with_a_wrong_clock(lab: Lab) -> None:
    """20: a board without a battery boots in the past: its certificates are not valid yet, the log says clock, and then it is."""
    shift, environment = shifted_clock(lab, -30 * DAY_S)
    ours = certs(lab, "ours")
    server = served(lab, ours)
    agent = shown(lab, server, ours, environment=environment)
    agent.answered_by("exit", 20)
    agent.settle()
    agent.until(lambda: "clock" in agent.log, "the clock is named")
    shift.write_text("0")
    agent.answered_by("server", 10)
    invariants([agent], [server])
