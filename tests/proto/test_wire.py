"""The wire: one table of cases read both ways, golden bytes, and refusals that name what is wrong."""

from __future__ import annotations

import math
from concurrent import futures

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.proto import edge_pb2 as pb
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto.codec import CodecConfig
from isthmus.proto.errors import WireError
from isthmus.proto.messages import (
    Ack,
    Busy,
    Cancel,
    DeviceMessage,
    Drain,
    Heartbeat,
    Hello,
    Hint,
    Invalid,
    Late,
    Layer,
    Result,
    ServerHeartbeat,
    ServerMessage,
    Welcome,
)
from isthmus.proto.vocabulary import Load, ServerTimings

SHA = bytes(range(32))
LOAD = Load(queue=3, wait_s=0.0125, tail_s=0.004)
TIMINGS = ServerTimings(receive_s=0.001, queue_s=0.0005, tail_s=0.004, send_s=0.000002)
CONFIG = CodecConfig(8, 8, 12, (0.0,) * 12, (0.5,), (), ())

DEVICE_CASES: list[tuple[DeviceMessage, str]] = [
    (
        Hello("cifar10", SHA, 1, "cam0"),
        "0a330a20000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f10011a0463616d30220763696661723130",
    ),
    (Layer(7, 0, False, 0.1, b"\x10\x00abc", 0xDEADBEEF), "1212080720a08d063defbeadde42051000616263"),
    (Layer(0, 1, True, 0.0, b"", 0, tail=2, reference=0), "12081001180128023001"),
    (
        Layer(2**32 - 1, 1, True, (2**32 - 1) / 1e6, b"x", 2**32 - 1, 1, 2**32 - 2),
        "122008ffffffff0f1001180120ffffffff0f280130ffffffff0f3dffffffff420178",
    ),
    (Cancel(300), "1a0308ac02"),
    (Heartbeat(0), "2200"),
]
SERVER_CASES: list[tuple[ServerMessage, str]] = [
    (Welcome("edge", 4, 258, LOAD), "0a08080310d46118a01f120b0a04656467651004188202"),
    (Welcome("edge", 4, 258, LOAD, 16), "0a08080310d46118a01f120d0a046564676510041882022010"),
    (Ack(7, 1, LOAD), "0a08080310d46118a01f1a0408071001"),
    (
        Result(7, 2, (0.5, -1.0, 3.25), TIMINGS, LOAD),
        "0a08080310d46118a01f221d080710021a0c0000003f000080bf0000504020e80728f40330a01f3802",
    ),
    (
        Result(7, 1, b"\x01mask", TIMINGS, LOAD),
        "0a08080310d46118a01f22160807100120e80728f40330a01f38024205016d61736b",
    ),
    (Late(7, LOAD), "0a08080310d46118a01f2a020807"),
    (Busy(7, 0.25, Hint.EARLIER_EXIT, LOAD), "0a08080310d46118a01f320808071090a10f1802"),
    (Busy(8, 0.0), "0a0032020808"),
    (
        Invalid(7, 1, "layer 1: 3 bytes, shorter than its header", LOAD),
        "0a08080310d46118a01f3a2f080710011a296c6179657220313a20332062797465732c2073686f72746572207468616e2069747320686561646572",
    ),
    (Drain(5.0, LOAD), "0a08080310d46118a01f420508c096b102"),
    (ServerHeartbeat(9, LOAD), "0a08080310d46118a01f4a020809"),
]


def test_every_message_has_a_case() -> None:
    assert {type(m) for m, _ in DEVICE_CASES} == set(DeviceMessage.__args__)
    assert {type(m) for m, _ in SERVER_CASES} == set(ServerMessage.__args__)


@pytest.mark.parametrize(("message", "golden"), DEVICE_CASES)
def test_device_messages_both_ways(message: DeviceMessage, golden: str) -> None:
    assert wire.to_device_pb(message).SerializeToString(deterministic=True).hex() == golden
    assert wire.from_device_pb(pb.DeviceMessage.FromString(bytes.fromhex(golden))) == message


@pytest.mark.parametrize(("message", "golden"), SERVER_CASES)
def test_server_messages_both_ways(message: ServerMessage, golden: str) -> None:
    assert wire.to_server_pb(message).SerializeToString(deterministic=True).hex() == golden
    assert wire.from_server_pb(pb.ServerMessage.FromString(bytes.fromhex(golden))) == message


# Budgets


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (0.0, 0),
        (-1.0, 0),
        (-math.inf, 0),
        (1.9e-6, 1),
        (0.0999999, 99999),
        (0.1, 100000),
        (0.3, 300000),
        (4294.967295, 2**32 - 1),
        (5000.0, 2**32 - 1),
        (math.inf, 2**32 - 1),
    ],
)
def test_budgets_are_whole_microseconds_rounded_down(duration_s: float, expected: int) -> None:
    assert wire.microseconds(duration_s) == expected


@given(st.integers(0, 2**32 - 1))
def test_a_budget_passed_on_unchanged_loses_nothing(duration_us: int) -> None:
    message = Layer(1, 0, True, duration_us / 1e6, b"", 0)
    assert wire.to_device_pb(message).layer.budget_us == duration_us
    assert wire.from_device_pb(wire.to_device_pb(message)) == message


@given(st.floats(0, 4294))
def test_nobody_believes_he_has_more_time_than_he_has(budget_s: float) -> None:
    crossed = wire.from_device_pb(wire.to_device_pb(Layer(1, 0, True, budget_s, b"", 0)))
    assert isinstance(crossed, Layer)
    assert budget_s - 1e-6 <= crossed.budget_s <= budget_s + 1e-9


def test_a_budget_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(WireError, match=r"^duration: not a number"):
        wire.to_device_pb(Layer(1, 0, True, math.nan, b"", 0))


# Refusals


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Cancel(-1), r"^Cancel: "),
        (Cancel(2**32), r"^Cancel: "),
        (Layer(1, 0, True, 0.1, b"", 2**32), r"^Layer: "),
        (Layer(1, 0, True, 0.1, b"", 0, reference=2**32 - 1), r"^Layer: "),
    ],
)
def test_numbers_that_do_not_fit_are_refused(message: DeviceMessage, why: str) -> None:
    with pytest.raises(WireError, match=why):
        wire.to_device_pb(message)


def test_numbers_that_do_not_fit_are_refused_of_a_server_too() -> None:
    with pytest.raises(WireError, match=r"^Late: "):
        wire.to_server_pb(Late(-1))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (pb.DeviceMessage(), r"^device message: empty"),
        (pb.DeviceMessage.FromString(b"\x7a\x00"), r"^device message: empty or of an unknown kind"),
        (pb.DeviceMessage(hello=pb.Hello(bundle_sha256=b"short")), r"^hello: a bundle hash of 5 bytes"),
        (
            pb.DeviceMessage(hello=pb.Hello(bundle_sha256=SHA, client_id="x" * 60_000)),
            r"^hello: a client id of 60000 characters, at most 128",
        ),
        (
            pb.DeviceMessage(hello=pb.Hello(bundle_sha256=SHA, bundle_name="x" * 129)),
            r"^hello: a bundle name of 129 characters, at most 128",
        ),
        (pb.DeviceMessage(layer=pb.Layer(layer=5)), r"^layer 5: there are 5"),
    ],
)
def test_malformed_device_messages_are_refused(message: pb.DeviceMessage, why: str) -> None:
    with pytest.raises(WireError, match=why):
        wire.from_device_pb(message)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (pb.ServerMessage(), r"^server message: empty"),
        (pb.ServerMessage(load=pb.Load(queue=1)), r"^server message: empty"),
        (pb.ServerMessage.FromString(b"\x32\x02\x18\x09"), r"^busy: hint 9 unknown"),
        (pb.ServerMessage(ack=pb.Ack(layer=5)), r"^layer 5: there are 5"),
        (pb.ServerMessage(invalid=pb.Invalid(layer=9)), r"^layer 9: there are 5"),
    ],
)
def test_malformed_server_messages_are_refused(message: pb.ServerMessage, why: str) -> None:
    with pytest.raises(WireError, match=why):
        wire.from_server_pb(message)


# What a server may say of a bundle of two layers

EXPECTED = wire.Expected(layers=2, max_layer_bytes=258)


def read(message: ServerMessage) -> ServerMessage:
    return wire.read_server(wire.to_server_pb(message).SerializeToString(), EXPECTED)


@pytest.mark.parametrize("message", [message for message, _ in SERVER_CASES])
def test_what_fits_the_bundle_is_read_as_it_is(message: ServerMessage) -> None:
    assert read(message) == message


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (Result(7, 0, (0.5,), TIMINGS, LOAD), "result: of 0 layers"),
        (Result(7, 3, (0.5,), TIMINGS, LOAD), "result: of 3 layers, this bundle has 2"),
        (Result(7, 2**32 - 1, (0.5,), TIMINGS, LOAD), "result: of 4294967295 layers"),
        (Result(7, 1, (0.5,), ServerTimings(queue_s=4000.0), LOAD), "result: says it took 4000 s"),
        (Result(7, 1, (0.5, math.nan), TIMINGS, LOAD), "result: numbers that are not finite"),
        (Result(7, 1, (math.inf,), TIMINGS, LOAD), "result: numbers that are not finite"),
    ],
)
def test_a_result_that_does_not_fit_costs_its_frame(result: Result, why: str) -> None:
    refused = read(result)
    assert isinstance(refused, Invalid)
    assert (refused.frame_id, refused.layer, refused.load) == (7, 0, LOAD)
    assert refused.why.startswith(why)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Ack(7, 2), r"^layer 2: this bundle has 2"),
        (Invalid(7, 2, "damaged"), r"^layer 2: this bundle has 2"),
        (Welcome("edge", 0, 258), r"^welcome: 0 credits"),
        (Welcome("edge", 2**32 - 1, 258), r"^welcome: 4294967295 credits"),
        (Welcome("edge", 4, 257), r"^welcome: takes layers of 257 bytes"),
    ],
)
def test_what_else_does_not_fit_the_bundle_is_refused(message: ServerMessage, why: str) -> None:
    with pytest.raises(WireError, match=why):
        read(message)


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"not protobuf")
@example(b"")
@example(b"\x22\x01")
def test_any_bytes_at_all_are_a_message_that_fits_or_are_refused(raw: bytes) -> None:
    try:
        message = wire.read_server(raw, EXPECTED)
    except WireError:
        return
    if isinstance(message, Result):
        assert 1 <= message.layers_used <= 2
        assert message.timings.total_s <= wire.LONGEST_S
    if isinstance(message, Ack | Invalid):
        assert message.layer < 2


# Limits and channel settings


def test_the_largest_layer_fits_the_message_limit() -> None:
    config = CodecConfig(64, 64, 64, (0.0,) * 64, (0.5,), (), ())
    largest = Layer(2**32 - 1, 1, True, 1e9, bytes(config.max_layer_bytes), 2**32 - 1, 2**32 - 1, 2**32 - 2)
    assert wire.to_device_pb(largest).ByteSize() <= wire.max_message_bytes(config)
    assert wire.max_message_bytes(config) <= config.max_layer_bytes + 100


def test_a_small_bottleneck_leaves_room_for_many_logits() -> None:
    result = Result(1, 2, (0.0,) * 10_000, TIMINGS, LOAD)
    assert wire.to_server_pb(result).ByteSize() <= wire.max_message_bytes(CONFIG)


def test_the_server_allows_the_pings_that_devices_send() -> None:
    device, server = dict(wire.channel_options(1000)), dict(wire.server_options(1000))
    assert server["grpc.http2.min_ping_interval_without_data_ms"] < device["grpc.keepalive_time_ms"]
    assert server["grpc.http2.max_ping_strikes"] == 0
    assert device["grpc.enable_retries"] == 0
    for options in (device, server):
        assert options["grpc.max_send_message_length"] == options["grpc.max_receive_message_length"] == 1000


def test_two_servers_cannot_share_a_port() -> None:
    options = wire.server_options(wire.max_message_bytes(CONFIG))
    first = grpc.server(futures.ThreadPoolExecutor(1), options=options)
    second = grpc.server(futures.ThreadPoolExecutor(1), options=options)
    try:
        port = first.add_insecure_port("127.0.0.1:0")
        first.start()
        with pytest.raises(RuntimeError, match="bind"):
            second.add_insecure_port(f"127.0.0.1:{port}")
    finally:
        first.stop(None).wait()
        second.stop(None).wait()


def test_the_generated_service_has_the_stream() -> None:
    assert {"Stream", "Describe"} <= set(vars(edge_pb2_grpc.EdgeServicer))
    assert callable(edge_pb2_grpc.add_EdgeServicer_to_server)
