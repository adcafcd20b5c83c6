"""Injections of a server that lies, and of one that is replaced."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import grpc
import pytest

from injections.invariants import invariants, oracle
from injections.lab import Lab
from injections.peers import impostor, said
from isthmus.proto import edge_pb2 as pb
from isthmus.proto import messages as m
from isthmus.proto.vocabulary import ServerTimings

WELCOME = said(m.Welcome("edge", 8, 65_536))
TIMINGS = ServerTimings()
CLASSES = len(oracle().bundle.manifest.labels)
FORGED = "edge\n2026-01-01 00:00:00,000 W isthmus.device.host: everything is fine"


def lies(frame: int) -> list[bytes]:
    """Answers to one frame that are none."""
    result = pb.ServerMessage(result=pb.Result(frame=frame, layers_used=1, outputs=[0.0] * CLASSES))

    def other(**fields: object) -> bytes:
        changed = pb.ServerMessage()
        changed.CopyFrom(result)
        for name, value in fields.items():
            if name == "outputs":
                del changed.result.outputs[:]
                changed.result.outputs.extend(value)  # type: ignore[arg-type]
            else:
                setattr(changed.result, name, value)
        return changed.SerializeToString()

    nan, huge = float("nan"), 3e38
    rest = bytes([i for n in range(16) for i in (n, 0)]) + bytes(64) + b"\xca\xf2\x49\x71"  # 1e30
    far = bytes([0xFF, 0xEA] * 16) + bytes(68)
    return [
        other(layers_used=2**32 - 1),
        other(layers_used=0),
        other(layers_used=5),
        other(outputs=[], packed=rest),
        other(outputs=[], packed=far),
        other(outputs=[], packed=b"\0"),
        other(outputs=[]),
        other(outputs=[0.0] * (CLASSES - 5)),
        other(outputs=[0.0] * 3000 + [1.0]),
        other(outputs=[nan] * CLASSES),
        other(outputs=[huge, -huge] * (CLASSES // 2) + [0.0]),
        other(frame=frame + 1_000_000),
        other(tail_us=2**32 - 1, queue_us=2**32 - 1),
        b"\xff\xff\xff",
        b"",
        pb.ServerMessage(load=pb.Load(queue=2**32 - 1, wait_us=2**32 - 1, tail_us=2**32 - 1)).SerializeToString(),
        said(m.Busy(frame, 4000.0)),
        said(m.Late(frame)),
        said(m.Invalid(frame, 0, FORGED)),
        pb.ServerMessage(invalid=pb.Invalid(frame=frame, layer=2**32 - 1, why="x" * 50_000)).SerializeToString(),
        pb.ServerMessage(ack=pb.Ack(frame=frame, layer=2**32 - 1)).SerializeToString(),
        bytes([0x32, 2, 0x18, 77]) + pb.ServerMessage(busy=pb.Busy(frame=frame)).SerializeToString(),
        said(m.ServerHeartbeat(2**32 - 1)),
        pb.ServerMessage(welcome=pb.Welcome(server_id=FORGED, credits=2**32 - 1)).SerializeToString(),
    ]


def test_35_lies_about_frames(lab: Lab) -> None:
    """35: whatever a server says of a frame costs that frame at most: it is answered from the device, and the next is tried."""
    told: list[bytes] = []

    def liar(requests: Iterator[pb.DeviceMessage], _: grpc.ServicerContext) -> Iterator[bytes]:
        for message in requests:
            if message.HasField("hello"):
                yield WELCOME
            elif message.HasField("heartbeat"):
                yield said(m.ServerHeartbeat(message.heartbeat.sequence))
            elif message.HasField("layer") and message.layer.layer == 0:
                choice = lies(message.layer.frame)
                told.append(choice[len(told) % len(choice)])
                yield told[-1]

    with impostor(liar) as address:
        agent = lab.agent(address, "--policy", "always-offload")
        agent.settle()
        agent.until(lambda: len(told) >= 2 * len(lies(0)), "every lie has been told twice: the server is still tried")
        assert agent.end() == 0, agent.last_words
    assert all(row["label"] < CLASSES for row in agent.rows if row["source"] != "none")
    assert "\n2026-01-01" not in agent.log
    invariants([agent], liar=True, log_lines=200)


def test_35_lies_about_the_stream(lab: Lab) -> None:
    """35: streams without welcome, with floods, garbage, forged reasons: the device answers, and tries again."""
    turns, played = itertools.count(), list[int]()

    def no_welcome() -> Iterator[bytes]:
        yield said(m.ServerHeartbeat(1))

    def garbage() -> Iterator[bytes]:
        yield b"\xff\xff\xff"

    def strange_welcome() -> Iterator[bytes]:
        yield pb.ServerMessage(welcome=pb.Welcome(server_id="x" * 30_000, credits=0)).SerializeToString()

    def drain() -> Iterator[bytes]:
        yield from (WELCOME, said(m.Drain(4000.0)))

    def flood() -> Iterator[bytes]:
        yield WELCOME
        yield from (said(m.Ack(n % 500, 0)) for n in range(20_000))

    def garbage_later() -> Iterator[bytes]:
        yield from (WELCOME, b"\xff\xff\xff", b"\xff")

    scripts = (no_welcome, garbage, strange_welcome, drain, flood, garbage_later)

    def liar(requests: Iterator[pb.DeviceMessage], context: grpc.ServicerContext) -> Iterator[bytes]:
        played.append(next(turns) % (len(scripts) + 1))
        turn = played[-1]
        next(requests)
        if turn < len(scripts):
            yield from scripts[turn]()
        context.abort(grpc.StatusCode.UNAVAILABLE, FORGED)

    with impostor(liar) as address:
        agent = lab.agent(address, "--policy", "always-offload")
        agent.settle()
        agent.until(lambda: len(played) > 2 * len(scripts), "every script has been played")
        agent.more(10)
        assert agent.end() == 0, agent.last_words
    assert "\n2026-01-01" not in agent.log
    invariants([agent], liar=True, log_lines=100)


@pytest.mark.parametrize("status", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL])
def test_35_no_server_of_ours(lab: Lab, status: grpc.StatusCode) -> None:
    """35: something else listens there: the device says so once, and answers."""

    def other(requests: Iterator[pb.DeviceMessage], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(status, FORGED)
        yield b""

    with impostor(other) as address:
        agent = lab.agent(address, frames=40)
        assert agent.wait() == 0, agent.last_words
    assert "server" not in agent.sources
    assert "\n2026-01-01" not in agent.log
    invariants([agent], log_lines=12)


def test_39_upgrade(lab: Lab) -> None:
    """39: the server comes back with the same bundle, with another, with the right one again."""
    first = lab.server()
    where = first.address
    agent = lab.agent(where)
    agent.answered_by("server", 10)
    agent.settle()
    assert first.end() == 0
    same = lab.server(listen=where)
    agent.answered_by("server", 10)
    assert same.end() == 0
    other = lab.server(listen=where, bundle="cifar10")
    agent.until(lambda: "cifar10" in agent.log, "the other bundle is named")
    agent.answered_by("exit", 20)
    assert "server" not in agent.sources[-10:]
    assert other.end() == 0
    right = lab.server(listen=where)
    agent.answered_by("server", 10)
    invariants([agent], [first, same, right])


def test_40_second_server_by_hand(lab: Lab) -> None:
    """40: the server is lost, and a second one takes over by hand: the agent is told of it, and nothing is lost of its record."""
    record = lab.folder / "run.jsonl"
    lost, second = lab.server(), lab.server()
    before = lab.agent(lost.address, "--record", str(record))
    before.answered_by("server", 10)
    lost.kill()
    before.answered_by("exit", 10)
    assert before.end() == 0
    after = lab.agent(second.address, "--record", str(record))
    after.answered_by("server", 10)
    after.settle()
    invariants([before, after], [second])
    kept = record.read_text()
    assert kept.count('"captured_s"') == len(before.rows) + len(after.rows), "a restart erases no history"
