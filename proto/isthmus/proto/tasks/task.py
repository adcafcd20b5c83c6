"""What every task is: outputs packed for the wire on the server, read as an answer on the device, two answers compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from isthmus.proto.vocabulary import Guess

Packed = tuple[float, ...] | bytes
"""What crosses for one frame: plain numbers, or bytes that only the task can read."""
Arrays = Sequence[NDArray[Any]]
"""A network's outputs for one frame, without the batch, in the network's own order."""


class Task(Protocol):
    """One kind of answer. `temperature` calibrates logits; `accuracy` is what an answer of this kind is worth on average.

    A task that knows how many `classes` there are refuses answers of any other.
    """

    def pack(self, outputs: Arrays) -> Packed:
        """What crosses."""

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The answer. Raises ValueError when it cannot be read or holds numbers that are not finite."""

    def agreement(self, one: Guess, other: Guess) -> float:
        """How well two answers to one picture agree, 0 to 1."""
