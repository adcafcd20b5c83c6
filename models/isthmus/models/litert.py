"""Signatures of a `.tflite` called with real values: the one way that head, tail and tools run LiteRT.

Inputs and outputs are real numbers; a signature that stores integers rounds on the way in and scales on the way out.
Every call goes through `Interpreter`, whose invoke releases the GIL.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.errors import ModelError

try:
    from ai_edge_litert.interpreter import Interpreter as Interpreter
except ImportError:  # 32-bit and older systems have its predecessor only, which runs the same heads
    from tflite_runtime.interpreter import Interpreter as Interpreter

Array = NDArray[Any]

CHATTER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
"""What LiteRT writes to standard error, past Python, when it first runs a graph; no command's output begins with it."""
STANDARD_ERROR = 2
_chatter: list[bytes] = []
"""CHATTER, once it was heard."""


def is_accelerated() -> bool:
    """Whether LiteRT has said that a delegate for the processor's vectors runs the graphs; it does at the first run."""
    return bool(_chatter)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back what is written to standard error meanwhile, and pass on all but CHATTER, which comes once a process."""
    try:
        kept = None if _chatter else os.dup(STANDARD_ERROR)
    except OSError:  # closed, as some services have it
        kept = None
    if kept is None:
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(kept, STANDARD_ERROR)
            os.close(kept)
            held.seek(0)
            said = held.read().splitlines(keepends=True)
            _chatter.extend(line for line in said if line.strip() == CHATTER)
            with contextlib.suppress(OSError):
                os.write(STANDARD_ERROR, b"".join(line for line in said if line.strip() != CHATTER))


class Stored(Protocol):
    """A signature as LiteRT has it: named tensors in, named tensors out, valid until its next call."""

    def __call__(self, **inputs: Array) -> Mapping[str, Array]:
        """Run the signature."""


class DirectSignature:
    """A signature called on the interpreter's core, its tensors read in place: 20 to 35 µs less than the public runner.

    It uses private names of ai-edge-litert 2.x and tflite-runtime 2.14; `_opened` falls back when they are gone.
    """

    def __init__(self, interpreter: Any, key: str, batch: int) -> None:
        runner = interpreter.get_signature_runner(key)
        warm_up(runner, batch)
        self._subgraph: int = runner._subgraph_index
        self._core = interpreter._interpreter
        self._inputs = {k: self._core.tensor(self._core, i, self._subgraph) for k, i in runner._inputs.items()}
        self._outputs = {k: self._core.tensor(self._core, i, self._subgraph) for k, i in runner._outputs.items()}

    def __call__(self, **inputs: Array) -> Mapping[str, Array]:
        """Copy the inputs in, run, and show the outputs where they are."""
        for name, value in inputs.items():
            np.copyto(self._inputs[name], value)
        self._core.Invoke(self._subgraph)
        return self._outputs


def warm_up(runner: Any, batch: int) -> None:
    """Call a signature once, so that it has its batch and its weights are packed before the first frame."""
    details = runner.get_input_details()
    with without_chatter():
        runner(**{name: np.zeros((batch, *d["shape"][1:]), d["dtype"]) for name, d in details.items()})


def _opened(interpreter: Any, key: str, batch: int) -> Stored:
    """The fastest way that this LiteRT offers to call signature `key`, warm."""
    try:
        return DirectSignature(interpreter, key, batch)
    except AttributeError:
        runner: Stored = interpreter.get_signature_runner(key)
        warm_up(runner, batch)
        return runner


@dataclass(frozen=True)
class Port:
    """One input or output: real value = scale * (stored - zero_point); scale 0 where it stores real values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Port:
        """Make a port from an interpreter's details of a tensor."""
        scale, zero_point = details["quantization"]
        shape = tuple(int(size) for size in details["shape"])
        return cls(shape, np.dtype(details["dtype"]), float(scale), int(zero_point))

    def stored(self, real: Array) -> Array:
        """Real values as this port takes them."""
        if real.dtype == self.dtype or (self.scale == 0 and self.dtype.kind == "f"):
            return real
        limits = np.iinfo(self.dtype)
        q = np.rint(real / np.float32(self.scale or 1.0)) + np.float32(self.zero_point)
        return np.clip(q, limits.min, limits.max).astype(self.dtype)

    def real(self, stored: Array) -> Array:
        """What this port gives as real values, a copy; integers that mean themselves (classes, counts) stay so."""
        if self.scale == 0:
            return stored.copy()
        shifted = stored.astype(np.float32)
        shifted -= np.float32(self.zero_point)
        shifted *= np.float32(self.scale)
        return shifted


def _ports(details: Mapping[str, Any]) -> dict[str, Port]:
    """In the order of their names, numbers in them as numbers: `features2` comes before `features10`."""
    ordered = sorted(details, key=lambda name: [int(s) if s.isdecimal() else s for s in re.split(r"([0-9]+)", name)])
    return {name: Port.of(details[name]) for name in ordered}


class Signature:
    """One signature, warm; real values in and out. Its interpreter's threads are its own: one call at a time."""

    def __init__(self, interpreter: Any, key: str, *, batch: int = 1) -> None:
        """Raises ValueError when the file has no signature `key`, RuntimeError when its graph takes no such batch."""
        runner = interpreter.get_signature_runner(key)
        self.inputs, self.outputs = _ports(runner.get_input_details()), _ports(runner.get_output_details())
        self.stored = _opened(interpreter, key, batch)
        """The same without conversion: what its ports store in, what they store out."""

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Real values in, real values out, in the order of `outputs`."""
        out = self.stored(**{name: self.inputs[name].stored(value) for name, value in inputs.items()})
        return {name: port.real(out[name]) for name, port in self.outputs.items()}


def opened(model: Path | bytes, *, threads: int = 1) -> Interpreter:
    """An interpreter for a file, or for its bytes. Raises ModelError naming it."""
    try:
        if isinstance(model, bytes):
            return Interpreter(model_content=model, num_threads=threads)
        return Interpreter(str(model), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        name = "model" if isinstance(model, bytes) else model
        raise ModelError(f"{name}: LiteRT cannot read it ({str(error).strip()})") from error


def allocated(model: bytes) -> Interpreter:
    """An interpreter for a file's bytes whose tensors have shapes. Raises ValueError or RuntimeError as LiteRT does."""
    interpreter = Interpreter(model_content=model)
    with without_chatter():
        interpreter.allocate_tensors()
    return interpreter


def signature_of(model: bytes, key: str, *, whose: Path) -> Signature:
    """Signature `key` of a file's bytes, warm. Raises ModelError naming `whose` graph it is when LiteRT refuses it."""
    try:
        return Signature(opened(model), key)
    except (ModelError, ValueError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise ModelError(f"{whose}: LiteRT cannot run it ({why}); convert the model again") from error
