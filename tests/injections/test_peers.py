"""Injections of peers: slow ones, silent ones, greedy ones, and what breaks the protocol."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest

from injections.invariants import invariants, oracle
from injections.lab import Lab, Server, until
from injections.machine import usage
from injections.peers import Http2, Peer, channel, hello, layer, probe, same
from isthmus.proto import edge_pb2, wire
from isthmus.proto import messages as m

ELSEWHERE = "127.0.0.2"
"""An attacker's address is another than an honest device's."""
TWO_LAYERS = [(seed, index) for seed in (5, 6) for index in range(10, 100, 15)]
"""Pictures that damaged payloads are made of."""


@pytest.fixture
def server(lab: Lab) -> Server:
    return lab.server()


@contextlib.contextmanager
def again_and_again(do: Callable[[], None], every_s: float) -> Iterator[None]:
    stopped = threading.Event()

    def loop() -> None:
        while not stopped.wait(every_s):
            with contextlib.suppress(OSError):
                do()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_10_slow_loris(lab: Lab) -> None:
    """10: connections that dribble, and more silent streams than there are places: an honest device is served all along."""
    server = lab.server("--max-streams", "8")
    dribbling = [Http2(server.address, source=ELSEWHERE) for _ in range(20)]
    silent: list[Http2] = []

    def crowd() -> None:
        silent.append(Http2(server.address, source=ELSEWHERE))
        for _ in range(80):
            silent[-1].open()
        for connection in dribbling:
            connection.socket.sendall(b"\0")

    with again_and_again(crowd, 0.5):
        time.sleep(1.2)
        agent = lab.agent(server.address)
        agent.answered_by("server", 60)
        agent.settle()
        second = lab.agent(server.address, client_id="cam1")
        second.answered_by("server", 10)
        assert agent.connections == second.connections == 1
    assert "resource_exhausted" not in agent.log + second.log
    for connection in (*dribbling, *silent):
        connection.close()
    invariants([agent, second], [server], log_lines=2000)


def test_11_never_reads(lab: Lab, server: Server) -> None:
    """11: a peer that asks and never reads: its streams end on the wire, and its memory is not the server's for ever."""
    agent = lab.agent(server.address)
    agent.answered_by("server", 10)
    agent.settle()
    greedy = [Http2(server.address, source=ELSEWHERE, window=0) for _ in range(10)]
    for connection in greedy:
        stream = connection.open()
        connection.say(stream, hello())
    for connection in greedy:
        with contextlib.suppress(ConnectionError):
            for burst in range(0, 6000, 50):
                connection.say(1, *(m.Heartbeat(n) for n in range(burst, burst + 50)))
                if burst % 500 == 0:
                    time.sleep(0.01)
    for connection in greedy:
        until(partial(connection.ended, 1), "a stream that is not read is ended on the wire", of=[server, agent])
        connection.close()
    agent.answered_by("server", 10)
    invariants([agent], [server], log_lines=80)


def test_12_oversize(lab: Lab, server: Server) -> None:
    """12: layers and hellos without end are refused before they cost anything."""
    most = oracle().codec.max_layer_bytes
    settled = usage(server.pid).rss_bytes
    for size in (most + 1, 1_000_000, 64_000_000):
        with channel(server.address) as own:
            peer = Peer(own).greeted()
            peer.say(layer(0, bytes(size)))
            code, why = peer.ending()
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, why
    assert usage(server.pid).rss_bytes - settled < 96 << 20
    with channel(server.address) as own:
        peer = Peer(own)
        peer.say(hello(client_id="x" * 60_000, bundle_name="y" * 60_000))
        code, why = peer.ending()
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    probe(server.address)
    invariants([], [server], growth_bytes=96 << 20)


def test_13_damaged_payloads(server: Server) -> None:
    """13: wrong checksums cost their layer; damage under a right checksum is refused or gives some answer, its own."""
    rng = random.Random(13)
    with channel(server.address) as own:
        peer = Peer(own).greeted()
        frame_id = 0
        for seed, index in TWO_LAYERS:
            base, *finer = oracle().payloads(oracle().picture(seed, index))
            frame_id += 3
            peer.say(layer(frame_id, base, crc=1))
            assert isinstance(peer.verdict(frame_id), m.Invalid)
            peer.say(layer(frame_id + 1, base, last=False), layer(frame_id + 1, finer[0], 1, crc=1))
            result = peer.verdict(frame_id + 1)
            assert isinstance(result, m.Result)
            assert result.layers_used == 1
            assert same(result.outputs, oracle().logits([base]))
            for damaged in (base[: rng.randrange(len(base))], rng.randbytes(len(base)), _flipped(base, rng)):
                frame_id += 1
                peer.say(layer(frame_id + 1, damaged))
                verdict = peer.verdict(frame_id + 1)
                assert isinstance(verdict, m.Invalid | m.Result)
                if isinstance(verdict, m.Result):
                    assert same(verdict.outputs, oracle().logits([damaged]))
    probe(server.address)
    invariants([], [server])


def _flipped(payload: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(payload))
    return payload[:at] + bytes([payload[at] ^ 1 << rng.randrange(8)]) + payload[at + 1 :]


def test_14_bombs(server: Server) -> None:
    """14: payloads that claim, or unfold to, far more than a frame can hold."""
    zstandard = pytest.importorskip("zstandard")
    bomb = zstandard.compress(bytes(10_000_000))[4:]
    terabyte = bytes([0xE0, *(0).to_bytes(2, "little"), 1, *(0).to_bytes(5, "little")])
    assert len(bomb) < oracle().codec.max_layer_bytes
    settled = usage(server.pid).rss_bytes
    with channel(server.address) as own:
        peer = Peer(own).greeted()
        cases = [
            b"\x20\0" + bomb,
            b"\x20\0" + terabyte,
            b"\x10\0" + b"\xff" * 500,
            b"\x10\0" + bytes(500),
            b"\x10\xff\0",
        ]
        cases += [b"\xf0\0\0\0", b"\x30\0", b"\0\0" + bytes(oracle().codec.max_layer_bytes - 2)]
        for frame_id, payload in enumerate(cases):
            peer.say(layer(frame_id, payload))
            assert isinstance(peer.verdict(frame_id), m.Invalid | m.Result), payload[:8]
    assert usage(server.pid).rss_bytes - settled < 32 << 20
    probe(server.address)
    invariants([], [server])


def test_15_order(server: Server) -> None:
    """15: layers doubled, out of order, alone, behind the last: every answer is the tail's on what was whole."""
    base, fine = oracle().payloads(oracle().picture(5, 40))[:2]
    cases: dict[str, tuple[list[m.Layer], set[int]]] = {
        "twice": ([layer(1, base, last=False), layer(1, base, last=False), layer(1, fine, 1)], {1, 2}),
        "refinement first": ([layer(2, fine, 1), layer(2, base, last=False)], {0, 1}),
        "refinement alone": ([layer(3, fine, 1)], {0}),
        "behind the last": ([layer(4, base), layer(4, fine, 1)], {1}),
        "far too high": ([layer(5, base, 4)], {0}),
        "base says it is a refinement": ([layer(6, fine, 0)], {0}),
        "another tail": ([layer(7, base, tail=3)], {0}),
        "against another frame": ([layer(8, base, reference=1)], {0}),
        "no time left": ([layer(9, base, budget_s=0.0)], {0, 1}),
        "whole": ([layer(10, base, last=False), layer(10, fine, 1)], {2}),
    }
    with channel(server.address) as own:
        peer = Peer(own).greeted()
        for name, (layers, allowed) in cases.items():
            frame_id = layers[0].frame_id
            peer.say(*layers, layer(frame_id + 100, base))
            results = [
                x for x in _heard_until(peer, frame_id + 100) if isinstance(x, m.Result) and x.frame_id == frame_id
            ]
            assert len(results) <= 1, name
            assert ({result.layers_used for result in results} or {0}) <= allowed, f"{name}: {results}"
            for result in results:
                assert same(result.outputs, oracle().logits([base, fine][: result.layers_used])), name
    probe(server.address)
    invariants([], [server])


def _heard_until(peer: Peer, frame_id: int) -> list[m.ServerMessage]:
    """All that the server says up to the result of a frame."""
    heard: list[m.ServerMessage] = []
    while (message := peer.hear()) is not None:
        heard.append(message)
        if isinstance(message, m.Result) and message.frame_id == frame_id:
            return heard
    raise AssertionError(f"the stream ended: {heard}")


def test_16_wrong_shapes(server: Server) -> None:
    """16: payloads of no length, of another bundle, of one byte: refused, or some finite answer."""
    other = oracle("cifar10")
    foreign = other.payloads(oracle().picture(5, 40))
    with channel(server.address) as own:
        peer = Peer(own).greeted()
        for frame_id, payload in enumerate((b"", b"\0", b"\x10\0", foreign[0], foreign[-1], b"\x10\0\0")):
            peer.say(layer(frame_id, payload))
            verdict = peer.verdict(frame_id)
            assert isinstance(verdict, m.Invalid | m.Result)
            if isinstance(verdict, m.Result):
                assert all(abs(x) < 1e30 for x in verdict.outputs if isinstance(x, float))
    probe(server.address)
    invariants([], [server])


def test_17_hello(lab: Lab, server: Server) -> None:
    """17: hellos of another bundle, of half a hash, of names that would write lines into the log."""
    forged = "signs\n2026-01-01 00:00:00,000 W isthmus.edge_server.server: everything is fine"
    hellos = {
        "hash": hello(bundle_sha256=b"\x89" * 32),
        "name": hello(bundle_sha256=b"\x88" * 32, bundle_name=forged),
        "escape": hello(bundle_sha256=b"\x87" * 32, bundle_name="\x1b[2Jsigns\r"),
    }
    for name, message in hellos.items():
        with channel(server.address) as own:
            peer = Peer(own)
            peer.say(message)
            code, why = peer.ending()
            assert code in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT}, name
            assert "\n" not in why, why
    for sha256 in (b"\x89" * 31, b"", b"\x89" * 33):
        with channel(server.address) as own:
            peer = Peer(own)
            peer.say(edge_pb2.DeviceMessage(hello=edge_pb2.Hello(bundle_sha256=sha256)).SerializeToString())
            assert peer.ending()[0] is grpc.StatusCode.INVALID_ARGUMENT
    with channel(server.address) as own:
        peer = Peer(own)
        peer.say(hello(client_id=forged))
        peer.ending() if not isinstance(peer.hear(), m.Welcome) else peer.close()
    probe(server.address)
    assert not re.search(r"^2026-01-01", server.log, re.MULTILINE)
    invariants([], [server])


def test_18_versions(server: Server) -> None:
    """18: other codec versions, unknown fields and kinds, two hellos, none: refused or ignored, one stream each."""
    pb = edge_pb2.DeviceMessage
    whole = wire.to_device_pb(hello()).SerializeToString()
    unknown_field, unknown_kind = bytes([0xFA, 0x07, 1, 0]), bytes([0xF2, 0x07, 1, 0])
    mismatch, malformed = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    refused: list[tuple[list[m.DeviceMessage | bytes], grpc.StatusCode]] = [
        ([hello(codec_version=version)], mismatch) for version in (0, 2, 2**32 - 1)
    ]
    refused += [
        ([hello(), hello()], malformed),
        ([layer(0, b"\0\0")], malformed),
        ([unknown_kind], malformed),
        ([b""], malformed),
        ([b"\xff\xff\xff"], malformed),
        ([hello(), pb().SerializeToString()], malformed),
    ]
    for messages, expected in refused:
        with channel(server.address) as own:
            peer = Peer(own)
            peer.say(*messages)
            assert peer.ending()[0] is expected, messages
    with channel(server.address) as own:
        peer = Peer(own)
        peer.say(whole + unknown_field)
        assert isinstance(peer.hear(), m.Welcome)
    probe(server.address)
    invariants([], [server], log_lines=60)


def test_36_protocol_fuzz(server: Server) -> None:
    """36: thousands of messages mutated at random, on hundreds of streams, and bytes that are no HTTP/2."""
    rng = random.Random(36)
    payload = oracle().payloads(oracle().picture(5, 40))[0]
    seeds = [
        wire.to_device_pb(x).SerializeToString() for x in (hello(), layer(3, payload), m.Cancel(3), m.Heartbeat(7))
    ]
    for _ in range(60):
        with channel(server.address) as own:
            for _ in range(4):
                peer = Peer(own)
                if rng.random() < 0.7:
                    peer.say(seeds[0])
                peer.say(*(_mutated(rng.choice(seeds), rng) for _ in range(8)))
                peer.say(b"\xff\xff\xff")
                peer.ending()
    for start in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        for _ in range(5):
            host, _, port = server.address.rpartition(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(start + rng.randbytes(rng.randrange(1, 300)))
    probe(server.address)
    invariants([], [server], log_lines=2000)


def _mutated(raw: bytes, rng: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                changed[at:at] = rng.randbytes(rng.randrange(1, 8))
            case 2:
                del changed[at : at + rng.randrange(1, 8)]
            case _:
                changed[at:at] = bytes(changed[: rng.randrange(20)])
    return bytes(changed)


def test_default_log(lab: Lab, server: Server) -> None:
    """The default log says who connected, who was refused, who left, and why: a line each."""
    agent = lab.agent(server.address, client_id="cam7", frames=30)
    agent.settle()
    with channel(server.address) as own:
        stranger = Peer(own)
        stranger.say(hello(bundle_sha256=b"\x89" * 32, bundle_name="strange", client_id="cam8"))
        stranger.ending()
    assert agent.wait() == 0
    server.until(lambda: len(re.findall("cam7|stream 1:", server.log)) >= 2, "its coming and its going are in the log")
    server.until(lambda: "strange" in server.log, "who was refused is in the log, with the reason")
    assert not any("cam7" in line and "cam8" in line for line in server.log.splitlines())
    invariants([agent], [server], log_lines=12)
