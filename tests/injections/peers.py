"""Peers that are none of ours: a device that says whatever it is told to, a server that lies, HTTP/2 by hand."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from injections.invariants import Oracle, oracle
from injections.lab import HERE, PATIENCE_S
from isthmus.proto import edge_pb2, wire
from isthmus.proto import messages as m
from isthmus.proto.codec import CODEC_VERSION, checksum

STREAM = "/isthmus.v1.Edge/Stream"
SHARED_CLIENT_ID = "cam9"


def hello(source: Oracle | None = None, **other: Any) -> m.Hello:
    """A hello that fits the bundle, but for what `other` says."""
    bundle = (source or oracle()).bundle
    fields: dict[str, Any] = {
        "bundle_name": bundle.manifest.name,
        "bundle_sha256": bundle.sha256,
        "codec_version": CODEC_VERSION,
        "client_id": SHARED_CLIENT_ID,
    }
    return m.Hello(**(fields | other))


def layer(frame_id: int, payload: bytes, index: int = 0, *, last: bool = True, **other: Any) -> m.Layer:
    """A layer with its checksum and a generous budget, but for what `other` says."""
    fields: dict[str, Any] = {"budget_s": 30.0, "crc": checksum(payload)}
    return m.Layer(frame_id=frame_id, layer=index, last=last, payload=payload, **(fields | other))


class Peer:
    """One stream to a server, over gRPC: says anything, also bytes that are no message, and hears what comes back."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._say: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[m.ServerMessage | None] = queue.SimpleQueue()
        raw: Any = channel.stream_stream(STREAM)
        self._call: Any = raw(iter(self._say.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for raw in self._call:
                self._heard.put(wire.from_server_pb(edge_pb2.ServerMessage.FromString(raw)))
        self._heard.put(None)

    def say(self, *messages: m.DeviceMessage | bytes) -> None:
        """Send messages, or bytes as they are."""
        for message in messages:
            self._say.put(message if isinstance(message, bytes) else wire.to_device_pb(message).SerializeToString())

    def hear(self, limit_s: float = PATIENCE_S) -> m.ServerMessage | None:
        """The next message; None once the stream has ended."""
        return self._heard.get(timeout=limit_s)

    def greeted(self, message: m.Hello | None = None) -> Peer:
        """Say hello and be welcomed."""
        self.say(message or hello())
        assert isinstance(self.hear(), m.Welcome), self.ending()
        return self

    def verdict(self, frame_id: int) -> m.Result | m.Invalid | m.Late | m.Busy | None:
        """What becomes of a frame: its result, or why there is none; None where the stream ended over it.

        A damaged refinement alone is no verdict: the base is still answered.
        """
        while (message := self.hear()) is not None:
            if isinstance(message, m.Result | m.Late | m.Busy) and message.frame_id == frame_id:
                return message
            if isinstance(message, m.Invalid) and message.frame_id == frame_id and message.layer == 0:
                return message
        return None

    def ending(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the stream, once it has."""
        while self.hear() is not None:
            pass
        return self._call.code(), self._call.details() or ""

    def close(self) -> None:
        """Go away."""
        self._say.put(None)
        self._call.cancel()


@contextlib.contextmanager
def channel(address: str, *, receive_bytes: int = -1) -> Iterator[grpc.Channel]:
    """A channel of its own connection, without limits."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", receive_bytes),
        ("grpc.enable_retries", 0),
    ]
    with grpc.insecure_channel(address, options=options) as opened:
        yield opened


def probe(address: str, frames: Iterable[int] = range(3), seed: int = 11) -> None:
    """An honest device is served rightly: every answer is that of its own picture."""
    with channel(address) as own:
        peer = Peer(own).greeted()
        for index in frames:
            payloads = oracle().payloads(oracle().picture(seed, index))
            peer.say(*(layer(index, payload, n, last=n + 1 == len(payloads)) for n, payload in enumerate(payloads)))
            result = peer.verdict(index)
            assert isinstance(result, m.Result), f"{result}: {peer.ending()}"
            assert same(result.outputs, oracle().logits(payloads[: result.layers_used]))
        peer.close()


def same(one: Any, other: Any) -> bool:
    """Two packed answers are equal, but for the order in which a batch is added."""
    return len(one) == len(other) and all(abs(a - b) < 1e-3 * max(1.0, abs(b)) for a, b in zip(one, other, strict=True))


Script = Callable[[Iterator[edge_pb2.DeviceMessage], grpc.ServicerContext], Iterator[bytes]]


@contextlib.contextmanager
def impostor(script: Script) -> Iterator[str]:
    """A server that does what `script` says with every stream: device messages in, raw bytes out. Its address."""
    handler: Any = grpc.stream_stream_rpc_method_handler(script, edge_pb2.DeviceMessage.FromString, None)
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("isthmus.v1.Edge", {"Stream": handler})])
    port = server.add_insecure_port(f"{HERE}:0")
    server.start()
    try:
        yield f"{HERE}:{port}"
    finally:
        server.stop(0).wait(PATIENCE_S)


def said(message: m.ServerMessage) -> bytes:
    """A server's message as it crosses."""
    return wire.to_server_pb(message).SerializeToString()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_HEADERS, ACKNOWLEDGE = 4, 1
INITIAL_WINDOW_SIZE = 4


class Http2:
    """A connection spoken by hand, for what no honest library does: half a preface, windows of zero, silence."""

    def __init__(self, address: str, *, source: str = HERE, window: int | None = None) -> None:
        """`source` is the address that it comes from; `window` what the server may send on a stream before it is asked."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S, source_address=(source, 0))
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACKNOWLEDGE, 0))
        self.authority = address
        self._stream = -1
        self._over: set[int] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open(self) -> int:
        """Begin a call of `Stream`, and say nothing on it; its number."""
        self._stream += 2
        block = b"".join(
            header(name, value)
            for name, value in (
                (":method", "POST"),
                (":scheme", "http"),
                (":path", STREAM),
                (":authority", self.authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            )
        )
        self.socket.sendall(frame(HEADERS, END_HEADERS, self._stream, block))
        return self._stream

    def say(self, stream: int, *messages: m.DeviceMessage) -> None:
        """Send messages on a stream."""
        for message in messages:
            raw = wire.to_device_pb(message).SerializeToString()
            self.socket.sendall(frame(DATA, 0, stream, struct.pack(">BI", 0, len(raw)) + raw))

    def _read(self) -> None:
        """Answer pings, as whoever wants to live does, and note which streams the server ends; drop all else."""
        with contextlib.suppress(OSError), self.socket.makefile("rb") as incoming:
            while len(head := incoming.read(9)) == 9:
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                content = incoming.read(int.from_bytes(head[:3], "big"))
                if kind == PING and not flags:
                    self.socket.sendall(frame(PING, ACKNOWLEDGE, 0, content))
                if kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & 1):
                    self._over.add(stream)

    def ended(self, stream: int) -> bool:
        """Whether the server has ended the stream on the wire: by trailers, by a reset, or with the connection."""
        return stream in self._over or not self._reader.is_alive()

    def close(self) -> None:
        """Go away."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """One frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(content).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + content


def header(name: str, value: str) -> bytes:
    """One header, literally and without an index (RFC 7541, section 6.2.2)."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
