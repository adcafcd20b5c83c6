"""What runs a tail: features in, answers out, packed for the wire. One class for each engine, one line of registration.

A tail is one file or several, each given what the one before gave: a distilled bundle's decoder runs in ONNX Runtime, the
original model's second half behind it in LiteRT. LiteRT is imported where a tail needs it: it takes 9 MB of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.models.crossing import parted
from isthmus.models.picture_ladder import TailPart
from isthmus.models.pictures import Intake, resized
from isthmus.proto.errors import BundleError, ConfigError, ModelError
from isthmus.proto.tasks.task import Packed, Task

if TYPE_CHECKING:
    from isthmus.models.litert import Signature

Arrays = tuple[NDArray[Any], ...]
Frame = NDArray[Any]
"""What crossed for one frame: features (H, W, C) float32, or a picture (H, W, 3) uint8."""
FATAL = 4
"""ONNX Runtime logs nothing less: what fails is raised too, and a line for every batch would be a flood."""
LITERT_BATCHES = (8, 4, 2)
"""Sizes for which a LiteRT model keeps an interpreter of its own, with its own memory; the rest of a batch runs one by one."""


class Engine(Protocol):
    """A bundle's tail, ready to run; called by one thread at a time."""

    def run(self, frames: Sequence[Frame]) -> Sequence[Packed | None]:
        """What crossed for each of B frames, to B answers; None for one that is not a number."""


class Model(Protocol):
    """One file of a tail: real values in, real values out, each (B, ...), in the order of `inputs` and `outputs`."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, tensors: Arrays) -> Arrays:
        """Run it on a batch."""


class OnnxModel:
    """ONNX Runtime on the CPU, with `threads` threads for one batch."""

    def __init__(self, path: Path, threads: int) -> None:
        """Raises BundleError naming the file when it cannot be read."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen, without a common base
            raise BundleError(f"{path}: not a tail that ONNX Runtime can read ({error})") from error
        self.inputs = tuple(port.name for port in self._session.get_inputs())
        self.outputs = tuple(port.name for port in self._session.get_outputs())
        self._one_by_one = any(port.shape[:1] == [1] for port in self._session.get_inputs())

    def run(self, tensors: Arrays) -> Arrays:
        """Run it on a batch; one by one where the file insists on a batch of one."""
        if not self._one_by_one or len(tensors[0]) == 1:
            return tuple(self._session.run(self.outputs, dict(zip(self.inputs, tensors, strict=True))))
        each = [self.run(tuple(tensor[i : i + 1] for tensor in tensors)) for i in range(len(tensors[0]))]
        return tuple(np.concatenate(parts) for parts in zip(*each, strict=True))


class LiteRtModel:
    """LiteRT's interpreter on the CPU: whole batches where the graph lets its inputs be resized, else one by one."""

    def __init__(self, path: Path, threads: int) -> None:
        """Raises BundleError naming the file when it cannot be read."""
        from isthmus.models import trial
        from isthmus.models.litert import Signature, opened

        try:
            trial.check(path)
            interpreter = opened(path, threads=threads)
            (key,) = interpreter.get_signature_list()
            self._one = Signature(interpreter, key)
        except (ModelError, ValueError, RuntimeError) as error:
            raise BundleError(f"{path}: not a tail that LiteRT can run ({error})") from error
        self.inputs, self.outputs = tuple(self._one.inputs), tuple(self._one.outputs)
        self.batched: dict[int, Signature] = {}
        for size in LITERT_BATCHES:
            try:
                signature = Signature(opened(path, threads=threads), key, batch=size)
            except (ValueError, RuntimeError):  # a shape in the graph insists on one
                break
            if not self._agrees(signature, size):
                break
            self.batched[size] = signature

    def run(self, tensors: Arrays) -> Arrays:
        """Run it on a batch."""
        done, parts, count = 0, [], len(tensors[0])
        while done < count:
            size = next((size for size in self.batched if size <= count - done), 1)
            signature = self.batched.get(size, self._one)
            given = zip(self.inputs, tensors, strict=True)
            parts.append(
                signature(**{n: x[done : done + size].reshape(size, *self._one.inputs[n].shape[1:]) for n, x in given})
            )
            done += size
        return tuple(np.concatenate([part[name] for part in parts]) for name in self.outputs)

    def _agrees(self, batched: Signature, size: int) -> bool:
        """Whether a batch gives what its members give alone: a graph may take a batch and mean something else by it."""
        rng = np.random.default_rng(0)
        real = {n: _noise(port.scale, (size, *port.shape[1:]), rng) for n, port in self._one.inputs.items()}
        together = batched(**real)
        for i in range(size):
            alone = self._one(**{name: values[i : i + 1] for name, values in real.items()})
            for name, values in alone.items():
                if together[name].shape[:1] != (size,) or not np.allclose(together[name][i], values[0], 1e-3, 1e-3):
                    return False
        return True


def _noise(scale: float, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.normal(0, 32 * scale or 1.0, shape).astype(np.float32)


ENGINES: dict[str, Callable[[Path, int], Model]] = {"onnx": OnnxModel, "litert": LiteRtModel}


class Tail:
    """A bundle's tail: its files one after the other, and its task's packing behind them."""

    def __init__(self, bundle: Bundle, threads: int, *, engine: str = "onnx") -> None:
        """`engine` runs the parts that are ONNX. Raises ConfigError or BundleError naming what is wrong."""
        if engine not in ENGINES:
            raise ConfigError(f"engine = '{engine}'; known: {', '.join(ENGINES)}")
        manifest, picture = bundle.manifest, bundle.manifest.picture
        self._tensors = manifest.bottleneck.tensors
        given = tuple(t.name for t in self._tensors) or ("features",)
        self._features = _Chain(bundle, manifest.tail, given, manifest.answers, threads, engine)
        if picture is not None:
            self._intake, self._size = Intake(picture.input), picture.input.shape
            answers = manifest.picture_answers(picture)
            self._pictures = _Chain(bundle, picture.tail, None, answers, threads, engine)

    def run(self, frames: Sequence[Frame]) -> list[Packed | None]:
        """Features (H, W, C) float32, or pictures (H, W, 3) uint8, to as many answers, in their order."""
        answers: dict[int, Packed | None] = {}
        for pictures in (False, True):
            chosen = [i for i, frame in enumerate(frames) if (frame.dtype == np.uint8) is pictures]
            if chosen:
                given = [frames[i] for i in chosen]
                packed = self._from_pictures(given) if pictures else self._from_features(given)
                answers.update(zip(chosen, packed, strict=True))
        return [answers[i] for i in range(len(frames))]

    def _from_features(self, frames: Sequence[Frame]) -> list[Packed | None]:
        return self._features.run(parted(np.stack(frames), self._tensors))

    def _from_pictures(self, frames: Sequence[Frame]) -> list[Packed | None]:
        return self._pictures.run((np.concatenate([self._intake(resized(pixels, self._size)) for pixels in frames]),))


class _Chain:
    """Files that run one after the other, and the packing of what the last one gives."""

    def __init__(
        self,
        bundle: Bundle,
        parts: Sequence[TailPart],
        given: tuple[str, ...] | None,
        task: Task,
        threads: int,
        engine: str,
    ) -> None:
        """`given`: the names of what the first file takes; None where it takes one thing, whatever its name is."""
        self._task = task
        self._models: list[Model] = []
        for part in parts:
            kind = engine if part.engine == "onnx" else part.engine
            if kind not in ENGINES:
                raise BundleError(f"{part.file}: engine '{kind}' unknown; this Isthmus knows {', '.join(ENGINES)}")
            model = ENGINES[kind](bundle.folder / part.file, threads)
            expected = given if given is not None else model.inputs[:1]
            if (model.inputs != expected) if not self._models else (len(model.inputs) != len(expected)):
                raise BundleError(f"{part.file}: takes {list(model.inputs)}, is given {list(expected)}")
            self._models.append(model)
            given = model.outputs

    def run(self, tensors: Arrays) -> list[Packed | None]:
        """Tensors (B, ...) to B answers."""
        count = len(tensors[0])
        for model in self._models:
            tensors = model.run(tensors)
        return [self._packed([output[i] for output in tensors]) for i in range(count)]

    def _packed(self, outputs: list[NDArray[Any]]) -> Packed | None:
        """One frame's answer. Looked through here, since what is packed as bytes hides a NaN."""
        return None if any(np.isnan(output).any() for output in outputs) else self._task.pack(outputs)
