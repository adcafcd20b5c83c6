"""Asks as Frigate's ZMQ detector does: one REQ socket, JSON and a tensor there, 20 x 6 numbers back."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray

PATIENCE_MS = 200
"""How long Frigate waits for a reply; it then reports an empty street."""
LONGEST_MS = 10_000
"""How long this one waits, so that a late reply is seen as such."""


class Reply(NamedTuple):
    """What came back, and when, on the monotonic clock."""

    rows: NDArray[np.float32]
    began_s: float
    ended_s: float


class Frigate:
    """One detector process of Frigate's."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.setsockopt(zmq.RCVTIMEO, LONGEST_MS)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)

    def said(self, *parts: bytes) -> list[bytes]:
        """Any message and the reply to it."""
        self._socket.send_multipart(parts)
        return self._socket.recv_multipart()

    def model_is_there(self) -> bool:
        """Frigate's question before its first picture."""
        (answer,) = self.said(json.dumps({"model_request": True, "model_name": "yolo.onnx"}).encode())
        told = json.loads(answer)
        return bool(told["model_available"] and told["model_loaded"])

    def ask(self, pixels: NDArray[Any]) -> Reply:
        """What is in a picture."""
        began_s = time.monotonic()
        told, rows = self.said(*_asked(pixels))
        ended_s = time.monotonic()
        assert json.loads(told) == {"shape": [20, 6], "dtype": "float32"}
        return Reply(np.frombuffer(rows, np.float32).reshape(20, 6), began_s, ended_s)

    def give_up(self, pixels: NDArray[Any]) -> None:
        """Ask and hang up at once, as after a timeout."""
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.send_multipart(_asked(pixels))
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        self._context.term()


def _asked(pixels: NDArray[Any]) -> tuple[bytes, bytes]:
    tensor = pixels[None]
    header = {"shape": list(tensor.shape), "dtype": tensor.dtype.name, "model_type": "yologeneric"}
    return json.dumps(header).encode(), tensor.tobytes()
