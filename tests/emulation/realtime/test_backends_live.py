"""Real links between real sockets. Namespaces are tested where the machine allows them, and skipped with its reason."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.emulation import synthetic
from isthmus.emulation.link import Bursts, LinkOptions
from isthmus.emulation.realtime import backends
from isthmus.emulation.realtime.backends import BACKENDS, LinkBackend, NamespaceLink
from isthmus.emulation.realtime.child import Child
from isthmus.emulation.realtime.namespaces import Namespaces
from isthmus.emulation.realtime.relay import RelayJob
from isthmus.emulation.traces import AnyTrace
from isthmus.proto.errors import BindError, ConfigError, DataError, IsthmusError

CLIENT = """
import json, socket, sys, time
host, _, port = sys.argv[1].rpartition(":")
began = time.monotonic()
with socket.create_connection((host, int(port)), timeout=20) as s:
    s.sendall(b"x" * int(sys.argv[2]))
    s.shutdown(socket.SHUT_WR)
    came = 0
    while part := s.recv(65536):
        came += len(part)
print(json.dumps({"came": came, "took_s": time.monotonic() - began}))
"""
WIDE = synthetic.constant(up_mbps=80, down_mbps=80, rtt_ms=0)


ABSENT = ("network namespaces: ", "tun on the ", "qdisc kind is unknown")
"""What a machine may lack."""


@contextlib.contextmanager
def or_skipped() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        if any(reason in str(error) for reason in ABSENT):
            pytest.skip(str(error))
        raise


@contextlib.contextmanager
def echo_server() -> Iterator[str]:
    """Answers each connection with as many bytes as came, once they have all come."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    came = 0
                    while part := connection.recv(65_536):
                        came += len(part)
                    connection.sendall(b"y" * came)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def started(name: str, trace: AnyTrace, upstream: str = "127.0.0.1:9", **options: object) -> Iterator[LinkBackend]:
    with or_skipped(), BACKENDS[name](trace, upstream=upstream, options=LinkOptions(**options)) as link:  # type: ignore[arg-type]
        yield link


def passed(link: LinkBackend, size_bytes: int) -> dict[str, float]:
    client = link.command([sys.executable, "-c", CLIENT, link.address, str(size_bytes)])
    done = subprocess.run(client, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.alone
@pytest.mark.parametrize("name", ["relay", "tun", "tbf", "netem"])
def test_a_process_on_the_device_s_side_reaches_the_server_at_the_trace_s_rate(name: str) -> None:
    trace = synthetic.constant(up_mbps=4, down_mbps=80, rtt_ms=0)
    with echo_server() as address, started(name, trace, address) as link:
        assert passed(link, 0)["came"] == 0
        found = passed(link, 400_000)
        lag = link.end()
    assert found["came"] == 400_000
    assert found["took_s"] >= 0.8 * 0.9, "400 kB over 4 Mbit/s, less what a bucket and the sockets let go at once"
    assert found["took_s"] <= 0.8 * 1.5 + 40 * lag.max_s + 0.5


@pytest.mark.alone
def test_tbf_lives_on_after_outages() -> None:
    """Without its cures the link sleeps for seconds after each: rates that jump, merged packets, a floor between."""
    rows = [row for _ in range(4) for row in ((0.3, 40, 40, 0), (0.4, 0, 0, 0), (0.3, 12, 40, 0))]
    with echo_server() as address, started("tbf", synthetic.steps(rows), address) as link:
        found = passed(link, 2_000_000)
    assert found["took_s"] < 4.0, "1 s carries about 1.9 MB"


def udp(link: LinkBackend) -> tuple[socket.socket, socket.socket]:
    assert isinstance(link, NamespaceLink)
    near, far = link.net.socket("near", "dgram"), link.net.socket("far", "dgram")
    near.connect(far.getsockname())
    far.settimeout(10.0)
    return near, far


def until(link: LinkBackend, time_s: float) -> None:
    time.sleep(max(0.0, link.began_s + time_s - time.monotonic()))


@pytest.mark.parametrize(
    ("outage", "expected"), [("hold", [b"before", b"during", b"after"]), ("drop", [b"before", b"after"])]
)
def test_tun_holds_or_drops_what_meets_an_outage(outage: str, expected: list[bytes]) -> None:
    trace = synthetic.steps([(2, 8, 8, 0), (1, 0, 0, 0), (30, 8, 8, 0)])
    with started("tun", trace, outage=outage) as link:
        near, far = udp(link)
        with near, far:
            for when_s, message in ((0.0, b"before"), (2.3, b"during"), (3.1, b"after")):
                until(link, when_s)
                near.send(message)
            assert [far.recv(100) for _ in expected] == expected
            assert time.monotonic() - link.began_s >= 3.0


def test_tun_loses_in_bursts_and_drops_what_its_queue_cannot_hold() -> None:
    def came(**options: Any) -> int:
        with started("tun", WIDE, **options) as link:
            near, far = udp(link)
            with near, far:
                for _ in range(100):
                    near.send(b"x" * 1000)
                count = 0
                while select.select([far], [], [], 0.5)[0]:
                    far.recv(2000)
                    count += 1
                return count

    assert came(queue_bytes=1e6) == 100
    assert came(queue_bytes=1e6, bursts=Bursts(good_s=1e-6, bad_s=1e6)) == 0
    assert 1 <= came(queue_bytes=3000) < 100


def test_a_delay_is_kept_both_ways() -> None:
    trace = synthetic.constant(up_mbps=80, down_mbps=80, rtt_ms=60)
    with started("tun", trace) as link:
        near, far = udp(link)
        with near, far:
            far.connect(near.getsockname())
            near.settimeout(10.0)
            began_s = time.monotonic()
            near.send(b"there")
            far.send(far.recv(10))
            assert near.recv(10) == b"there"
            assert time.monotonic() - began_s >= 0.06


def test_auto_says_what_it_took_and_what_that_leaves_out() -> None:
    said: list[str] = []
    lossy = synthetic.constant(up_mbps=8, down_mbps=8, rtt_ms=20, loss=0.01)
    with (
        echo_server() as address,
        backends.opened("auto", lossy, upstream=address, options=LinkOptions(), say=said.append) as link,
    ):
        assert passed(link, 1000)["came"] == 1000
    assert said[-1 if link.name == "tun" else -2].startswith(f"{link.name}: ")
    if link.name == "relay":
        assert said[-1] == "relay: leaves out the trace's loss"


def test_what_a_back_end_cannot_do_is_refused_or_said() -> None:
    with pytest.raises(ConfigError, match=r"^relay: cannot lose what waits in an outage"):
        backends.RelayLink(WIDE, upstream="127.0.0.1:9", options=LinkOptions(outage="drop"))
    with pytest.raises(ConfigError, match=r"^back end 'tc': not one of auto, tun, netem, relay, tbf"):
        backends.opened("tc", WIDE, upstream="127.0.0.1:9", options=LinkOptions(), say=print).__enter__()
    with pytest.raises(ConfigError, match="HOST:PORT"):
        backends.RelayLink(WIDE, upstream="nowhere", options=LinkOptions())
    lossy = synthetic.constant(up_mbps=8, down_mbps=8, rtt_ms=20, loss=0.01)
    assert backends.needs(lossy, LinkOptions(jitter_s=0.1)) == {"delay", "jitter", "loss"}
    assert backends.needs(lossy, LinkOptions(lossless=True, outage="drop")) == {"delay", "drop"}
    assert backends.needs(WIDE, LinkOptions(bursts=Bursts(1, 1))) == {"loss"}


def test_without_namespaces_the_reason_is_told_and_auto_goes_on_with_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    said: list[str] = []
    options = LinkOptions()
    with backends.opened("auto", WIDE, upstream="127.0.0.1:9", options=options, say=said.append) as link:
        assert link.name == "relay"
    assert said[0].startswith("not here: tun: network namespaces: unshare, nsenter, ip not found")
    dropping = LinkOptions(outage="drop")
    with pytest.raises(ConfigError, match="cannot lose what waits"):
        backends.opened("auto", WIDE, upstream="127.0.0.1:9", options=dropping, say=said.append).__enter__()


@pytest.mark.alone
def test_namespaces_leave_nothing_behind() -> None:
    def links() -> set[str]:
        return {path.name for path in Path("/sys/class/net").iterdir()}

    before = links()
    with or_skipped(), Namespaces() as net:
        net.veth()
        host = net._process.pid
        assert links() == before, "nothing is seen outside"
        with (
            pytest.raises(ConfigError, match=r"^dgram on the far side: Address already in use"),
            net.socket("far", "dgram", 7),
        ):
            net.socket("far", "dgram", 7)
        with pytest.raises(ConfigError, match=r"^ip link set nothing up: .*nothing"):
            net.run("near", "ip", "link", "set", "nothing", "up")
    assert not Path(f"/proc/{host}").exists()


def test_a_child_s_error_is_raised_in_its_parent() -> None:
    unknown = synthetic.constant(up_mbps=float("nan"), down_mbps=1, rtt_ms=0)
    with pytest.raises(DataError, match="the up rate is unknown"):
        Child(RelayJob(unknown, "127.0.0.1:0", "127.0.0.1:9"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BindError, match="another to listen on"):
        Child(RelayJob(WIDE, f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:9"))


def test_a_child_that_dies_is_missed() -> None:
    with Child(RelayJob(WIDE, "127.0.0.1:0", "127.0.0.1:9")) as child:
        child._process.kill()
        with pytest.raises(IsthmusError, match=r"^RelayJob: its process ended with code -9"):
            child.end()


def test_programs_are_found_where_a_user_s_path_does_not_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian keeps `tc` in /usr/sbin, which is on the path of root only."""
    kept = [part for part in os.environ["PATH"].split(os.pathsep) if Path(part).name != "sbin"]
    monkeypatch.setenv("PATH", os.pathsep.join(kept))
    with or_skipped(), Namespaces() as net:
        for program in ("ip", "tc"):
            assert Path(net.command("near", [program, "-V"])[-2]).is_absolute()
            net.run("near", program, "-V")
        with pytest.raises(ConfigError, match="network namespaces: no-such-program not found; install"):
            net.run("near", "no-such-program")
