"""All that a server decides, in virtual time: messages in, replies out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from isthmus.edge_server.admission import HELLO_S, SILENCE_S, Close, Ending, Limits
from isthmus.edge_server.streams import Served
from isthmus.proto import messages as m
from isthmus.proto.codec import CODEC_VERSION, Codec, checksum, fit
from isthmus.proto.messages import Hello
from isthmus.proto.security import SHARED_NAME
from virtual_streams import TAIL_S, Server


@pytest.fixture
def server(served: Served, engine: Any) -> Server:
    return Server(served, engine)


def test_a_frame_from_hello_to_result(server: Server, served: Served, hello: Hello, frame: Any, features: Any) -> None:
    stream = server.open()
    server.hear(stream, hello)
    server.hear(stream, frame(1)[0])
    server.run_until(0.02)
    server.hear(stream, frame(1)[1])
    server.run_until(1.0)
    assert server.kinds(stream) == ["Welcome", "Ack", "Ack", "Result"]
    welcome, *_, result = server.said[stream]
    assert isinstance(welcome, m.Welcome)
    assert (welcome.server_id, welcome.credits, welcome.max_layer_bytes) == ("edge", 8, served.codec.max_layer_bytes)
    assert isinstance(result, m.Result)
    codec = Codec(served.codec)
    assert result.outputs[0] == pytest.approx(float(codec.decode(codec.encode(features, 0)).sum()), rel=1e-4)
    assert result.layers_used == 2
    assert (result.timings.receive_s, result.timings.tail_s) == pytest.approx((0.02, TAIL_S))


def test_every_layer_of_a_bundle_is_waited_for(engine: Any) -> None:
    """A frame used to be handed over after its second layer, whatever its bundle had."""
    samples = np.random.default_rng(0).normal(size=(32, 4, 4, 8)).astype(np.float32)
    config = fit(samples, (0.0,) * 8, (0.1,), layers=4)
    server = Server(Served("deep", bytes(32), config), engine)
    stream = server.open()
    server.hear(stream, Hello("deep", bytes(32), CODEC_VERSION, "cam0"))
    for index, payload in enumerate(Codec(config).encode(samples[0], 0)):
        server.hear(stream, m.Layer(1, index, index == 3, 1.0, payload, checksum(payload)))
    server.run_until(1.0)
    result = server.said[stream][-1]
    assert isinstance(result, m.Result)
    assert result.layers_used == 4


def test_frames_that_wait_share_a_batch(server: Server, hello: Hello, frame: Any) -> None:
    streams = [server.open() for _ in range(3)]
    for stream in streams:
        server.hear(stream, hello, *frame(1))
    server.run_until(1.0)
    assert server.batches == [3]
    assert all(server.kinds(stream)[-1] == "Result" for stream in streams)


def test_a_missing_refinement_is_not_waited_for_beyond_the_deadline(server: Server, hello: Hello, frame: Any) -> None:
    stream = server.open()
    server.hear(stream, hello, frame(1, budget_s=0.1)[0])
    server.run_until(0.1)
    result = server.said[stream][-1]
    assert isinstance(result, m.Result)
    assert result.layers_used == 1
    assert 0.08 < result.timings.receive_s < 0.09


@pytest.mark.parametrize("broken", ["crc", "content"])
def test_a_damaged_refinement_costs_only_itself(server: Server, hello: Hello, frame: Any, broken: str) -> None:
    stream = server.open()
    base, fine = frame(1)
    # Either the checksum is wrong, or it is right and what it covers is the wrong layer.
    damage = {"crc": fine.crc ^ 1} if broken == "crc" else {"payload": base.payload, "crc": base.crc}
    fine = replace(fine, **damage)
    server.hear(stream, hello, base, fine)
    server.run_until(1.0)
    invalid = next(message for message in server.said[stream] if isinstance(message, m.Invalid))
    assert invalid.layer == 1
    result = server.said[stream][-1]
    assert isinstance(result, m.Result)
    assert result.layers_used == 1


def test_a_base_that_cannot_be_decoded_costs_the_frame_but_not_the_stream(
    server: Server, hello: Hello, frame: Any
) -> None:
    stream = server.open()
    base, _ = frame(1)
    rubbish = replace(base, payload=b"\xff" * 9, crc=checksum(b"\xff" * 9), last=True)
    server.hear(stream, hello, rubbish, *frame(2))
    server.run_until(1.0)
    assert [(message.frame_id, message.layer) for message in server.said[stream] if isinstance(message, m.Invalid)] == [
        (1, 0)
    ]
    assert [message.frame_id for message in server.said[stream] if isinstance(message, m.Result)] == [2]


def test_another_bundle_is_refused_with_both_named(server: Server, hello: Hello) -> None:
    stream = server.open()
    server.hear(stream, replace(hello, bundle_name="cifar10", bundle_sha256=b"\xab" * 32))
    assert server.closed[stream] == (
        Ending.MISMATCH,
        "hello: bundle cifar10 abababababab…, this server serves tiny 000102030405…; give both halves the same bundle",
    )


def test_another_codec_is_refused_with_both_named(server: Server, hello: Hello) -> None:
    stream = server.open()
    server.hear(stream, replace(hello, codec_version=9))
    assert server.closed[stream] == (
        Ending.MISMATCH,
        "hello: codec version 9, this server speaks 1; install the same Isthmus on both",
    )


@pytest.mark.parametrize("count", [0, 2])
def test_one_hello_and_first(server: Server, hello: Hello, count: int) -> None:
    stream = server.open()
    server.hear(stream, *[hello] * count, m.Heartbeat(1))
    assert server.closed[stream][0] is Ending.MALFORMED


def test_an_oversized_layer_ends_its_stream_only(server: Server, served: Served, hello: Hello, frame: Any) -> None:
    good, bad = server.open(), server.open()
    server.hear(good, hello)
    huge = replace(frame(1)[0], payload=b"\x00" * (served.codec.max_layer_bytes + 1))
    server.hear(bad, hello, huge)
    server.hear(good, *frame(1))
    server.run_until(1.0)
    assert {stream: ending for stream, (ending, _) in server.closed.items()} == {bad: Ending.OVERSIZED}
    assert server.kinds(good)[-1] == "Result"


def test_more_frames_than_credits_are_busy(served: Served, engine: Any, hello: Hello, frame: Any) -> None:
    server = Server(served, engine, Limits(stream_credits=2))
    stream = server.open()
    server.hear(stream, hello, frame(1)[0], *frame(2), *frame(3))
    assert server.kinds(stream) == ["Welcome", "Ack", "Ack", "Ack", "Busy", "Ack"]
    server.hear(stream, m.Cancel(1), *frame(4))
    server.run_until(1.0)
    assert {message.frame_id for message in server.said[stream] if isinstance(message, m.Result)} == {2, 4}


def test_a_frame_without_time_is_late(server: Server, hello: Hello, frame: Any) -> None:
    stream = server.open()
    server.hear(stream, hello, *frame(1, budget_s=TAIL_S / 2))
    assert server.kinds(stream)[-1] == "Late"


def test_one_device_too_many_is_refused_at_its_hello(served: Served, engine: Any, hello: Hello) -> None:
    server = Server(served, engine, Limits(streams=1))
    first, second = server.open(), server.open()
    server.hear(first, hello)
    server.hear(second, hello)
    assert server.closed[second] == (Ending.CROWDED, "edge: 1 streams are open, max_streams = 1")
    assert server.kinds(second) == []
    server.streams.on_gone(first)
    third = server.open()
    server.hear(third, hello)
    assert server.kinds(third) == ["Welcome"]


def test_silent_streams_take_no_place_from_a_device(server: Server, hello: Hello) -> None:
    """Sixty-four of them once locked every honest device out for nine seconds, and could do so for ever."""
    for _ in range(1000):
        server.open("10.0.0.66")
    honest = server.open("10.0.0.1")
    server.hear(honest, hello)
    assert server.kinds(honest) == ["Welcome"]
    assert server.streams.count < 1 + 2 * 64
    server.run_until(HELLO_S + 1)
    assert server.streams.count == 1
    assert {ending for ending, _ in server.closed.values()} == {Ending.CROWDED, Ending.SILENT}


def test_a_closed_stream_counts_until_it_is_gone(served: Served, engine: Any, hello: Hello) -> None:
    streams = Server(served, engine).streams
    stream = streams.open(now=0.0)
    streams.on_malformed(stream, "nonsense")
    assert streams.count == 1
    streams.on_message(stream, hello, now=0.0)
    assert [type(action) for action in streams.actions()] == [Close], "and is not spoken to"
    streams.on_gone(stream)
    assert streams.count == 0


def test_a_client_id_must_be_the_certificates_name(server: Server, hello: Hello) -> None:
    honest, liar = server.open(certificate="cam0"), server.open(certificate="cam1")
    server.hear(honest, hello)
    server.hear(liar, hello)
    assert server.kinds(honest) == ["Welcome"]
    ending, why = server.closed[liar]
    assert ending is Ending.MISMATCH
    assert why.startswith("hello: client id 'cam0', but the certificate is for 'cam1'; give the agent that --client-id")


def test_a_second_stream_of_a_certificate_replaces_the_first(
    served: Served, engine: Any, hello: Hello, frame: Any
) -> None:
    server = Server(served, engine, Limits(streams=1))
    first, second = server.open("10.0.0.1", "cam0"), server.open("10.0.0.9", "cam0")
    server.hear(first, hello, *frame(1))
    assert first not in server.closed, "one that has not said hello replaces nobody"
    server.hear(second, hello, *frame(2))
    server.run_until(1.0)
    ending, why = server.closed[first]
    assert ending is Ending.REPLACED
    assert why.startswith("another stream of 'cam0' came from 10.0.0.9")
    assert server.kinds(second)[-1] == "Result"


@pytest.mark.parametrize("certificate", [None, SHARED_NAME])
def test_without_a_certificate_of_its_own_a_device_is_its_stream(
    server: Server, hello: Hello, certificate: str | None
) -> None:
    for stream in [server.open(certificate=certificate) for _ in range(3)]:
        server.hear(stream, hello)
        assert server.kinds(stream) == ["Welcome"]
    assert not server.closed


def test_a_revoked_certificate_ends_its_streams_and_opens_none(server: Server, hello: Hello) -> None:
    lost, kept = server.open(certificate="cam0"), server.open(certificate="cam1")
    server.hear(lost, hello)
    server.hear(kept, replace(hello, client_id="cam1"))
    server.streams.revoke({"cam0"})
    again = server.open(certificate="cam0")
    assert {stream: ending for stream, (ending, _) in server.closed.items()} == dict.fromkeys(
        (lost, again), Ending.REVOKED
    )
    server.streams.revoke(set())
    pardoned = server.open(certificate="cam0")
    server.hear(pardoned, hello)
    assert server.kinds(pardoned) == ["Welcome"]


def test_frames_beyond_the_rate_are_busy_until_it_is_kept(
    served: Served, engine: Any, hello: Hello, frame: Any
) -> None:
    server = Server(served, engine, Limits(frames_per_s=10))
    stream = server.open(certificate="cam0")
    server.hear(stream, hello)
    for frame_id in range(30):  # in a second; ten are the burst, ten the rate
        server.run_until(frame_id / 30)
        server.hear(stream, *frame(frame_id))
    server.run_until(1.0)
    results = [message for message in server.said[stream] if isinstance(message, m.Result)]
    busy = [message for message in server.said[stream] if isinstance(message, m.Busy)]
    assert len(results) + len(busy) == 30
    assert len(results) == pytest.approx(20, abs=1)
    assert all(0 < message.retry_s <= 0.1 for message in busy)
    again = server.open(certificate="cam0")  # whoever comes back is no other
    server.hear(again, hello, *frame(1))
    assert "Busy" in server.kinds(again)


def test_a_device_that_sends_too_fast_is_read_at_its_rate(
    served: Served, engine: Any, hello: Hello, frame: Any
) -> None:
    server = Server(served, engine, Limits(bytes_per_s=1000))
    stream, other = server.open(), server.open()
    server.hear(stream, hello)
    assert server.streams.pause_s(stream, 0.0) == 0
    base, fine = frame(1)
    sent = 0
    while sent < 2000:
        server.hear(stream, base, fine)
        sent += len(base.payload) + len(fine.payload)
    assert server.streams.pause_s(stream, 0.0) == pytest.approx(sent / 1000 - 1, rel=0.05)
    assert server.streams.pause_s(stream, sent / 1000) == 0
    assert server.streams.pause_s(other, 0.0) == 0


def test_a_flood_of_small_messages_is_read_at_its_rate(server: Server, hello: Hello) -> None:
    stream = server.open()
    server.hear(stream, hello, *[m.Heartbeat(n) for n in range(45_000)])
    assert server.streams.pause_s(stream, 0.0) > 5


def test_a_heartbeat_is_echoed_and_keeps_the_stream(server: Server, hello: Hello) -> None:
    loud, silent, mute = server.open(), server.open(), server.open()
    server.hear(loud, hello)
    server.hear(silent, hello)
    for second in range(1, 15):
        server.run_until(second)
        server.hear(loud, m.Heartbeat(second))
        assert (mute in server.closed) == (second >= HELLO_S)
    assert {stream: ending for stream, (ending, _) in server.closed.items()} == dict.fromkeys(
        (silent, mute), Ending.SILENT
    )
    assert [message.sequence for message in server.said[loud] if isinstance(message, m.ServerHeartbeat)][:3] == [
        1,
        2,
        3,
    ]
    server.run_until(2 * SILENCE_S + 14)
    assert loud in server.closed
    assert server.streams.due_at is None, "an empty server sleeps"


def test_draining_answers_what_is_in_flight_and_takes_nothing_new(server: Server, hello: Hello, frame: Any) -> None:
    busy, idle = server.open(), server.open()
    server.hear(busy, hello, frame(1)[0], *frame(2))
    server.hear(idle, hello)
    server.streams.drain(5.0, now=server.now)
    server.hear(busy, *frame(3), frame(1)[1])
    server.run_until(1.0)
    answers = [(type(a).__name__, a.frame_id) for a in server.said[busy] if isinstance(a, m.Busy | m.Result)]
    assert sorted(answers) == [("Busy", 3), ("Result", 1), ("Result", 2)]
    assert "Drain" in server.kinds(idle)
    assert {stream: ending for stream, (ending, _) in server.closed.items()} == dict.fromkeys(
        (busy, idle), Ending.DRAINED
    )
    late = server.open()
    assert server.closed[late][0] is Ending.DRAINED


def test_draining_ends_with_the_grace(server: Server, hello: Hello, frame: Any) -> None:
    stream = server.open()
    server.hear(stream, hello, frame(1)[0])
    server.streams.drain(0.5, now=0.0)
    server.run_until(0.4)
    assert server.closed == {}
    server.run_until(0.6)
    assert server.closed[stream] == (Ending.DRAINED, "edge: stopping; the grace is over")


def test_a_failing_tail_costs_its_batch_only(server: Server, hello: Hello, frame: Any) -> None:
    stream = server.open()
    server.hear(stream, hello, *frame(1))
    server.run_until(0.5, broken=True)
    server.hear(stream, *frame(2))
    server.run_until(1.0)
    assert [type(a).__name__ for a in server.said[stream] if not isinstance(a, m.Ack)] == [
        "Welcome",
        "Invalid",
        "Result",
    ]


def test_a_gone_stream_is_not_spoken_to(server: Server, hello: Hello, frame: Any) -> None:
    stream = server.open()
    server.hear(stream, hello, *frame(1))
    server.run_until(0.001)
    server.streams.on_gone(stream)
    server.hear(stream, *frame(2))
    server.run_until(1.0)
    assert "Result" not in server.kinds(stream)
    assert server.streams.count == 0
