"""Runs the head's stages by signature (LiteRT) and keeps what a frame needs between them.

One interpreter holds every signature of `head.tflite`, all of them warm: a switch of width costs nothing but cold caches.
A `job` runs in a worker thread (the interpreter releases the GIL); everything else is cheap and belongs to the host's own
thread. A frame that is forgotten while its stage runs takes its tensors with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.proto.codec import Codec
from isthmus.proto.errors import BundleError, CodecError, DataError
from isthmus.proto.plan import Guess, StageResult

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]


class Signature(Protocol):
    """One signature of the head: named tensors in, named tensors out, valid until its next call."""

    def __call__(self, **inputs: Floats) -> Mapping[str, Floats]:
        """Run it."""


class DirectSignature:
    """A signature called on the interpreter's core, its tensors seen in place: 20 to 35 µs less than the public runner.

    It uses private names of ai-edge-litert 2.x and tflite-runtime 2.14; `open_signature` falls back when they are gone.
    """

    def __init__(self, interpreter: Any, key: str) -> None:
        runner = interpreter.get_signature_runner(key)
        warm_up(runner)
        self._subgraph: int = runner._subgraph_index
        self._core = interpreter._interpreter
        self._inputs = {k: self._core.tensor(self._core, i, self._subgraph) for k, i in runner._inputs.items()}
        self._outputs = {k: self._core.tensor(self._core, i, self._subgraph) for k, i in runner._outputs.items()}

    def __call__(self, **inputs: Floats) -> Mapping[str, Floats]:
        """Copy the inputs in, run, and show the outputs where they are."""
        for name, value in inputs.items():
            np.copyto(self._inputs[name], value)
        self._core.Invoke(self._subgraph)
        return self._outputs


def warm_up(runner: Any) -> None:
    """Call a signature once, so that its weights are packed before the first frame."""
    runner(**{name: np.zeros(d["shape"], d["dtype"]) for name, d in runner.get_input_details().items()})


def open_signature(interpreter: Any, key: str) -> Signature:
    """The fastest way that this LiteRT offers to call signature `key`, warm."""
    try:
        return DirectSignature(interpreter, key)
    except AttributeError:
        runner: Signature = interpreter.get_signature_runner(key)
        warm_up(runner)
        return runner


@dataclass
class _Held:
    """What one frame leaves behind from stage to stage."""

    pixels: NDArray[Any]
    hidden: Floats | None = None
    features: Floats | None = None
    payloads: tuple[bytes, ...] = ()
    step: int = -1


class Executor:
    """The head of one bundle, and the tensors of the frames in flight."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        manifest = bundle.manifest
        try:
            self._interpreter = Interpreter(str(bundle.head_path), num_threads=threads)
            self._signatures = {
                (i, s.width): open_signature(self._interpreter, s.signature)
                for i, stage in enumerate(manifest.stages)
                for s in stage
            }
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{bundle.head_path}: not a head of this bundle ({error})") from error
        self._temperature = {(i, s.width): s.temperature for i, stage in enumerate(manifest.stages) for s in stage}
        self._last_stage = len(manifest.stages) - 1
        # A codec has scratch memory of its own: one for the worker thread, one for the host's.
        self._predictor, self._codec = Codec(bundle.codec), Codec(bundle.codec)
        self._size = manifest.input.size
        std = np.asarray(manifest.input.std, np.float32)
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._offset = (np.asarray(manifest.input.mean, np.float32) / std).astype(np.float32)
        self._held: dict[int, _Held] = {}

    def hold(self, frame_id: int, pixels: NDArray[Any]) -> None:
        """Take charge of a frame's pixels: (H, W, 3) RGB, uint8 or finite floats of the same scale.

        Raises DataError when they are of another shape or not finite; the frame is then not held.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise DataError(f"frame {frame_id}: shape {pixels.shape}, expected (height, width, 3) RGB")
        if pixels.dtype != np.uint8:
            wrong = int(np.count_nonzero(~np.isfinite(pixels)))
            if wrong:
                raise DataError(f"frame {frame_id}: {wrong} values are NaN or infinite; check the source")
        self._held[frame_id] = _Held(pixels)

    def job(self, frame_id: int, stage: int, width: float) -> Callable[[], StageResult]:
        """The work of one stage of a held frame, to be called in the worker thread; it outlives a `forget`."""
        return partial(self._run_stage, self._held[frame_id], frame_id, stage, width)

    def _run_stage(self, held: _Held, frame_id: int, stage: int, width: float) -> StageResult:
        began = time.perf_counter()
        signature = self._signatures[stage, width]
        out = signature(hidden=held.hidden) if stage and held.hidden is not None else signature(image=self._input(held))
        sizes = None
        if stage == self._last_stage:
            held.features = out["features"][0].copy()
            sizes = self._sizes(held.features)
        else:
            held.hidden = out["hidden"].copy()
        guess = self._guess(out["logits"][0], self._temperature[stage, width])
        return StageResult(frame_id, stage, width, guess, time.perf_counter() - began, sizes)

    def _sizes(self, features: Floats) -> tuple[tuple[int, ...], ...] | None:
        """Predicted payload bytes; None when the features cannot be coded, so that the frame stays on the device."""
        try:
            return self._predictor.predict(features)
        except CodecError as error:
            log.warning("features: %s; answered from the device", error)
            return None

    def encode(self, frame_id: int, step: int, layer: int) -> bytes:
        """The payload of one layer of a frame's features."""
        held = self._held[frame_id]
        if held.step != step:
            if held.features is None:
                raise DataError(f"frame {frame_id}: no features yet; its last stage has not run")
            held.payloads, held.step = self._codec.encode(held.features, step), step
        return held.payloads[layer]

    def forget(self, frame_id: int) -> None:
        """Drop everything of a frame."""
        self._held.pop(frame_id, None)

    def _input(self, held: _Held) -> Floats:
        pixels = held.pixels
        if pixels.shape[:2] != (self._size, self._size):
            shrinks = pixels.shape[0] > self._size
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            pixels = cv2.resize(pixels, (self._size, self._size), interpolation=how)
        x: Floats = np.multiply(pixels, self._scale, dtype=np.float32)
        x -= self._offset
        return x[None]  # (1, S, S, 3)

    @staticmethod
    def _guess(logits: Floats, temperature: float) -> Guess:
        z = logits / temperature
        label = int(z.argmax())
        return Guess(label, float(1 / np.exp(z - z[label]).sum()))


def measure_stages(executor: Executor, bundle: Bundle, *, repeats: int = 5) -> dict[tuple[int, float], float]:
    """Median seconds of every (stage, width) on this machine: the profile that the scheduler starts from."""
    size = bundle.manifest.input.size
    seconds: dict[tuple[int, float], list[float]] = {}
    for _ in range(repeats):
        for width in bundle.manifest.widths:
            executor.hold(0, np.zeros((size, size, 3), np.uint8))
            for stage in range(len(bundle.manifest.stages)):
                result = executor.job(0, stage, width)()
                seconds.setdefault((stage, width), []).append(result.compute_s)
    executor.forget(0)
    return {key: sorted(values)[len(values) // 2] for key, values in seconds.items()}
