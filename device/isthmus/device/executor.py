"""Runs the head's stages by signature (LiteRT) and keeps what a frame needs between them.

One interpreter holds every signature of `head.tflite`, all of them warm: a switch of width costs nothing but cold caches.
A `job` runs in a worker thread (the interpreter releases the GIL); everything else is cheap and belongs to the host's own
thread. A frame that is forgotten while its stage runs takes its tensors with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.device.neural_filter import NeuralFilter
from isthmus.device.temporal.coder import Coder, Sizes
from isthmus.models import crossing, trial
from isthmus.models.bundle import Bundle, Manifest, Stage
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake, placing, resized
from isthmus.models.regions import seen
from isthmus.proto.errors import BundleError, CodecError, DataError, ModelError
from isthmus.proto.vocabulary import FilterResult, Guess, Placing, Reference, StageResult

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]


@dataclass
class _Held:
    """What one frame leaves behind from stage to stage."""

    pixels: NDArray[Any]
    hidden: Floats | None = None
    features: Floats | None = None
    views: tuple[tuple[NDArray[np.uint8], Placing], ...] = ()
    """The pictures that may cross, and where the whole one lies in what the server is then asked about."""
    guess: Guess | None = None
    payloads: tuple[bytes, ...] = ()
    step: int = -1
    reference: Reference | None = None
    """What its deltas would be coded against."""


class Executor:
    """The head of one bundle, and the tensors of the frames in flight."""

    def __init__(self, bundle: Bundle, *, threads: int = 1, neural_filter: NeuralFilter | None = None) -> None:
        """`neural_filter` stands before the head, if there is one. BundleError when the head is not this bundle's."""
        manifest = bundle.manifest
        try:
            trial.check(bundle.head_path)
            interpreter = opened(bundle.head_path, threads=threads)
            self._stages = {
                (i, s.width): _Stage(Signature(interpreter, s.signature) if s.signature else None, s, manifest)
                for i, stage in enumerate(manifest.stages)
                for s in stage
            }
        except (ModelError, ValueError, RuntimeError) as error:
            raise BundleError(f"{bundle.head_path}: not a head of this bundle ({error})") from error
        self._accuracy = {(p.exit, p.width): p.accuracy for p in manifest.points}
        self._last_stage, self._picture_stage = len(manifest.stages) - 1, manifest.picture_stage
        self._bottleneck = manifest.bottleneck
        self._coder = Coder(bundle.codec)
        self._held: dict[int, _Held] = {}
        self._neural_filter = neural_filter
        self._ladder = manifest.picture
        self._input = manifest.input

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

    def filter_job(self, frame_id: int) -> Callable[[], FilterResult]:
        """The neural filter's work on a held frame, to be called as `job` is; there must be a filter."""
        assert self._neural_filter is not None
        return partial(self._run_filter, self._neural_filter, self._held[frame_id], frame_id)

    @staticmethod
    def _run_filter(neural_filter: NeuralFilter, held: _Held, frame_id: int) -> FilterResult:
        began = time.perf_counter()
        dismissed, guess = neural_filter(held.pixels)
        return FilterResult(frame_id, dismissed, guess, time.perf_counter() - began)

    def _run_stage(self, held: _Held, frame_id: int, stage: int, width: float) -> StageResult:
        began = time.perf_counter()
        part = self._stages[stage, width]
        out = part(held)
        sizes, deltas, placings = None, Sizes(), tuple[Placing, ...]()
        if "hidden" in out:
            held.hidden = out["hidden"]
        if stage == self._last_stage and out:
            held.features = crossing.joined(out, self._bottleneck)
        if self._ladder is not None and stage == self._picture_stage:
            held.views = seen(held.pixels, self._ladder, held.guess)
        if held.features is not None or held.views:
            sizes, deltas = self._sizes(held)
            placings = self._placings(held)
        if part.facts.exit:
            packed = part.task.pack([out[name][0] for name in part.facts.exit])
            accuracy = self._accuracy.get((stage, width), 0.0)
            guess = part.task.guess(packed, temperature=part.facts.temperature, accuracy=accuracy)
            held.guess = placing(held.pixels.shape, part.picture).outward(guess)
        took_s, reference = time.perf_counter() - began, held.reference if deltas else None
        return StageResult(frame_id, stage, width, held.guess, took_s, sizes, placings, reference, deltas)

    def _sizes(self, held: _Held) -> tuple[Sizes | None, Sizes]:
        """Payload bytes, whole and as deltas; features that cannot be coded are left out, a frame without any stays here."""
        pictures = [pixels for pixels, _ in held.views]
        try:
            return self._coder.sizes(held.features, pictures, held.reference)
        except CodecError as error:
            log.warning("features: %s; not sent", error)
            held.features = None
            return self._coder.sizes(None, pictures, None) if pictures else (None, ())

    def refer(self, frame_id: int, reference: Reference) -> None:
        """Say what a held frame may be coded against, before its last stage's `job` runs."""
        self._held[frame_id].reference = reference

    def _placings(self, held: _Held) -> tuple[Placing, ...]:
        """By step of the ladder, where the whole picture lies in what the server answers about; none: everywhere as a whole."""
        by_step = [placing(held.pixels.shape, self._input)] * len(self._bottleneck.steps)
        if self._ladder is not None and held.views:
            for view, (_, where) in zip(self._ladder.views, held.views, strict=True):
                by_step += [where] * len(view.qualities)
        return tuple(by_step) if any(where != Placing() for where in by_step) else ()

    def coding_job(self, frame_id: int, step: int) -> Callable[[], object] | None:
        """What must be coded in the worker thread before `encode`: a picture, which takes milliseconds; else None."""
        held = self._held[frame_id]
        if step < len(self._bottleneck.steps) or held.step == step:
            return None
        return partial(self._code, held, frame_id, step)

    def encode(self, frame_id: int, step: int, layer: int) -> bytes:
        """The payload of one layer of a frame."""
        held = self._held[frame_id]
        if held.step != step:
            self._code(held, frame_id, step)
        return held.payloads[layer]

    def features(self, frame_id: int) -> Floats:
        """The features (H, W, C) of a frame before they are coded. Raises DataError when its last stage has not run."""
        features = self._held[frame_id].features
        if features is None:
            raise DataError(f"frame {frame_id}: no features; its last stage has not run")
        return features

    def _code(self, held: _Held, frame_id: int, step: int) -> None:
        if held.features is None and not held.views:
            raise DataError(f"frame {frame_id}: nothing to send yet; its last stage has not run")
        held.payloads, held.step = (
            self._coder.whole(frame_id, held.features, [pixels for pixels, _ in held.views], step),
            step,
        )

    def delta(self, frame_id: int, step: int, layers: int, reference: Reference) -> tuple[bytes, int]:
        """The one payload that stands for so many layers of a frame, coded against another; and that one's seal.

        Raises DataError where there are no features, or nothing is held of the other frame.
        """
        features = self._held[frame_id].features
        if features is None:
            raise DataError(f"frame {frame_id}: no features to send yet; its last stage has not run")
        return self._coder.delta(frame_id, features, step, layers, reference)

    def forget(self, frame_id: int) -> None:
        """Drop everything of a frame."""
        self._held.pop(frame_id, None)


class _Stage:
    """One stage at one width: what it takes of a held frame, and its signature."""

    def __init__(self, signature: Signature | None, facts: Stage, manifest: Manifest) -> None:
        if signature is not None and (absent := set(facts.exit) - set(signature.outputs)):
            raise ModelError(
                f"{facts.signature} gives no {', '.join(sorted(absent))}, which its early exit is said to be"
            )
        self.facts, self.task = facts, manifest.exit_answers(facts)
        self.picture = facts.input or manifest.input
        self._signature, self._intake = signature, Intake(self.picture)

    def __call__(self, held: _Held) -> dict[str, Floats]:
        """The signature's outputs, the caller's own; none where only the picture crosses."""
        if self._signature is None:
            return {}
        if "image" in self._signature.inputs:
            return self._signature(image=self._intake(held.pixels))
        if held.hidden is None:
            raise DataError(f"{self.facts.signature}: needs what the stage before gives, which has not run")
        return self._signature(hidden=held.hidden)


def measure_stages(executor: Executor, bundle: Bundle, *, repeats: int = 5) -> dict[tuple[int, float], float]:
    """Median seconds of every (stage, width) on this machine: the profile that the scheduler starts from."""
    seconds: dict[tuple[int, float], list[float]] = {}
    for _ in range(repeats):
        for width in bundle.manifest.widths:
            executor.hold(0, np.zeros((*bundle.manifest.input.shape, 3), np.uint8))
            for stage in range(len(bundle.manifest.stages)):
                result = executor.job(0, stage, width)()
                seconds.setdefault((stage, width), []).append(result.compute_s)
    executor.forget(0)
    return {key: sorted(values)[len(values) // 2] for key, values in seconds.items()}


def measure_coding(executor: Executor, bundle: Bundle, *, repeats: int = 5) -> float:
    """Median seconds of coding a picture at the finest quality, soft noise that no coder finds easy; 0 where none crosses."""
    manifest = bundle.manifest
    if manifest.picture is None:
        return 0.0
    height, width = manifest.picture.crossing.shape
    noise = np.random.default_rng(0).integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8)
    pixels, step, seconds = resized(noise, (height, width)), len(manifest.bottleneck.steps), []
    for _ in range(repeats):
        executor.hold(0, pixels)
        for stage in range(manifest.picture_stage + 1):
            executor.job(0, stage, manifest.widths[0])()
        began = time.perf_counter()
        if (job := executor.coding_job(0, step)) is not None:
            job()
        seconds.append(time.perf_counter() - began)
        executor.forget(0)
    return sorted(seconds)[len(seconds) // 2]
