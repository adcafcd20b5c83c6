"""A peer of the server's made of bytes: it can do what gRPC's own client never does, such as grant no window."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from isthmus.proto import wire
from isthmus.proto.messages import DeviceMessage

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
REQUEST = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "",
    ":authority": "edge",
    "content-type": "application/grpc",
    "te": "trailers",
}


class Peer:
    """One connection with as many streams as are opened on it; `window` bytes of each may be sent to it."""

    def __init__(self, address: str, *, window: int, method: str = "Stream") -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30.0)
        self._request = REQUEST | {":path": f"/isthmus.v1.Edge/{method}"}
        self._streams = 0
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window)))

    def open(self) -> int:
        """Begin a call of the service's method; its HTTP/2 number."""
        stream = 1 + 2 * self._streams
        self._streams += 1
        block = b"".join(
            b"\0" + text(name) + text(value) for name, value in self._request.items()
        )  # HPACK, nothing indexed
        self._socket.sendall(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def say(self, stream: int, *messages: DeviceMessage) -> None:
        """Send whole messages."""
        for message in messages:
            self.trickle(stream, packed(message))

    def trickle(self, stream: int, part: bytes) -> None:
        """Send part of a message."""
        self._socket.sendall(frame(DATA, 0, stream, part))

    def frames(self) -> Iterator[tuple[int, int, int]]:
        """(kind, flags, stream) of each frame that comes, until the server ends the connection; pings are answered."""
        while header := self._read(9):
            size, kind, flags, stream = int.from_bytes(header[:3], "big"), header[3], header[4], header[5:]
            payload = self._read(size)
            if kind == PING and not flags & ACK:
                self._socket.sendall(frame(PING, ACK, 0, payload))
            yield kind, flags, int.from_bytes(stream, "big")

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self._socket.recv(size - len(data))
            except ConnectionError:
                more = b""
            if not more:
                return b""
            data += more
        return data


def packed(message: DeviceMessage) -> bytes:
    """A message as gRPC frames it."""
    body = wire.to_device_pb(message).SerializeToString()
    return b"\0" + struct.pack(">I", len(body)) + body


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(value: str) -> bytes:
    """A string literal of HPACK below 127 bytes, not Huffman-coded (RFC 7541, 5.2)."""
    return bytes([len(value)]) + value.encode()
