"""int8 heads without training: a search over the quantiser's options, led by boosted trees (Quantune: Lee et al. 2022).

Every option is judged by how often the whole network, at every width, still answers as the float one does, on pictures
that it was not calibrated with. No labels are needed, and the validation pictures are not touched.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor

from isthmus.models.bundle import Bundle
from isthmus.models.bundling import card, writer
from isthmus.models.bundling.evaluate import evaluate, fitted_codec, measured, save
from isthmus.models.bundling.shipped import Shipped
from isthmus.models.data.labelled import Validation
from isthmus.models.litert import Signature, opened
from isthmus.models.progress import Report
from isthmus.proto.errors import DataError

Granularity = Literal["channel", "tensor"]
Algorithm = Literal["min-max", "octav", "mse"]
Kept = Literal["nothing", "exits", "projection", "exits and projection", "first convolution"]
How = Literal["boosted", "random"]

GRANULARITIES: dict[Granularity, Any] = {
    "channel": qtyping.QuantGranularity.CHANNELWISE,
    "tensor": qtyping.QuantGranularity.TENSORWISE,
}
ALGORITHMS: dict[Algorithm, Any] = {
    "min-max": AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    "octav": AlgorithmName.OCTAV,
    "mse": AlgorithmName.MSE,
}
CALIBRATING = (8, 32, 128)
KEPT: dict[Kept, str | None] = {
    "nothing": None,
    "exits": ".*exit_(conv|linear).*",
    "projection": ".*project.*",
    "exits and projection": ".*(exit_(conv|linear)|project).*",
    "first convolution": ".*FirstStage.*PlainConv_0.*",
}
"""The operators that stay float, by the names that `export` gives."""
FIRST_AT_RANDOM = 6
"""The number of random trials before the trees choose."""


@dataclass(frozen=True)
class Options:
    """One way to quantise a head."""

    granularity: Granularity
    algorithm: Algorithm
    calibrating: int
    """The number of pictures that the ranges are calibrated with."""
    kept_float: Kept


@dataclass(frozen=True)
class Trial:
    """The result of one way to quantise; `agreement` is 0 to 1."""

    options: Options
    agreement: float
    size_bytes: int


def every_option() -> tuple[Options, ...]:
    """Every way to quantise a head."""
    return tuple(Options(*o) for o in itertools.product(GRANULARITIES, ALGORITHMS, CALIBRATING, KEPT))


class HeadQuantiser:
    """Quantises one bundle's head; calibrations are kept, since many options share one."""

    def __init__(self, bundle: Bundle, images: NDArray[np.uint8]) -> None:
        """`images` (N, S, S, 3) RGB, at least as many as the most that an option calibrates with."""
        self._path = bundle.head_path
        self._inputs = _stage_inputs(bundle, images)
        self._calibrations: dict[int, Any] = {}

    def head(self, options: Options) -> bytes:
        """The head quantised so, as a .tflite; its inputs and outputs are int8 where their operators are."""
        q = quantizer.Quantizer(str(self._path))
        granularity, algorithm = GRANULARITIES[options.granularity], ALGORITHMS[options.algorithm]
        operators = qtyping.TFLOperationName
        q.add_static_config(".*", operators.ALL_SUPPORTED, 8, 8, granularity, algorithm)
        if (kept := KEPT[options.kept_float]) is not None:
            q.update_quantization_recipe(kept, operators.ALL_SUPPORTED, None, AlgorithmName.NO_QUANTIZE)
        with _quiet():
            if options.calibrating not in self._calibrations:
                some = {key: rows[: options.calibrating] for key, rows in self._inputs.items()}
                self._calibrations[options.calibrating] = q.calibrate(some, num_threads=1)
            result = q.quantize(
                self._calibrations[options.calibrating], enable_progress_bar=False, enable_progress_report=False
            )
        return bytes(result.quantized_model)


def _stage_inputs(bundle: Bundle, images: NDArray[np.uint8]) -> dict[str, list[dict[str, NDArray[np.float32]]]]:
    """What each signature is given for each picture; a later stage is given what the float one before it gives."""
    m, interpreter = bundle.manifest, opened(bundle.head_path)
    mean, std = np.asarray(m.input.mean, np.float32), np.asarray(m.input.std, np.float32)
    given: dict[str, list[dict[str, NDArray[np.float32]]]] = {}
    for width in m.widths:
        x = [((image.astype(np.float32) / 255 - mean) / std)[None] for image in images]
        for i in range(len(m.stages)):
            stage = Signature(interpreter, bundle.stage(i, width).signature)
            (name,) = stage.inputs
            given[bundle.stage(i, width).signature] = [{name: value} for value in x]
            x = [stage(**{name: value}).get("hidden", value) for value in x]
    return given


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library: it reports every tensor that two signatures share, and that calibration takes memory."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logging.disable(before)


class Agreement:
    """How often a quantised head's network answers as the float one: the mean over widths, exits and the tail."""

    def __init__(self, bundle: Bundle, images: NDArray[np.uint8]) -> None:
        """Answer `images` (N, S, S, 3) RGB with the float head."""
        self._bundle, self._images = bundle, images
        self._float = self._answers(Shipped(bundle))

    def __call__(self, head: bytes) -> float:
        """The agreement of a head of the same signatures, 0 to 1."""
        return float((self._answers(Shipped(self._bundle, head)) == self._float).mean())

    def _answers(self, halves: Shipped) -> NDArray[np.int64]:
        rows, sent, answers = [], np.empty(0, np.float32), np.empty(0, np.float32)
        for width in self._bundle.manifest.widths:
            features, exits = halves.head(self._images, width)
            if not np.array_equal(features, sent):  # a width may change the exits alone
                sent, answers = features, halves.tail(features)
            rows += [logits.argmax(axis=1) for logits in (*exits, answers)]
        return np.stack(rows)


def search(
    try_out: Callable[[Options], Trial],
    space: Sequence[Options],
    *,
    how: How,
    trials: int,
    seed: int,
) -> list[Trial]:
    """Try at most `trials` options of `space`; returns the trials in order, of which `best` picks one.

    Random: drawn without return. Boosted: after a few at random, always the one that trees fitted on the trials so far
    think best.
    """
    rng = np.random.default_rng(seed)
    order = [space[i] for i in rng.permutation(len(space))]
    done: list[Trial] = []
    while order and len(done) < trials:
        if how == "boosted" and len(done) >= FIRST_AT_RANDOM:
            order.sort(key=_promise(done, space, seed), reverse=True)
        done.append(try_out(order.pop(0)))
    return done


def best(trials: Sequence[Trial]) -> Trial:
    """The trial of highest agreement; of equals, the smallest head."""
    return max(trials, key=lambda t: (t.agreement, -t.size_bytes))


def _promise(done: Sequence[Trial], space: Sequence[Options], seed: int) -> Callable[[Options], float]:
    columns = [sorted({astuple(o)[i] for o in space}, key=str) for i in range(len(astuple(space[0])))]

    def one_hot(options: Options) -> list[float]:
        return [float(value == v) for value, values in zip(astuple(options), columns, strict=True) for v in values]

    trees = GradientBoostingRegressor(n_estimators=60, max_depth=2, random_state=seed)
    trees.fit([one_hot(t.options) for t in done], [t.agreement for t in done])
    return lambda options: float(trees.predict([one_hot(options)])[0])


SCORING = 400
"""Pictures that options are compared on, beside those that they are calibrated with."""
PICTURES = max(CALIBRATING) + SCORING
"""The number of pictures that a search takes."""


def quantise(
    bundle: Bundle,
    images: NDArray[np.uint8],
    validation: Validation,
    target: Path,
    *,
    how: How,
    trials: int,
    seed: int,
    report: Report,
) -> Bundle:
    """Search, quantise the head the best way, measure every operating point anew, and write the bundle to `target`.

    `images` (PICTURES, S, S, 3) are pictures for the search, those to calibrate with first; DataError if they are fewer.
    """
    if len(images) < PICTURES:
        raise DataError(f"{bundle.manifest.name}: {len(images)} pictures to quantise with; the search takes {PICTURES}")
    quantiser, score = HeadQuantiser(bundle, images[: max(CALIBRATING)]), Agreement(bundle, images[-SCORING:])

    def try_out(options: Options) -> Trial:
        head = quantiser.head(options)
        trial = Trial(options, score(head), len(head))
        report(f"{options}: agreement {trial.agreement:.4f}, {trial.size_bytes / 1e3:.0f} kB")
        return trial

    tried = search(try_out, every_option(), how=how, trials=trials, seed=seed)
    chosen = best(tried)
    head = quantiser.head(chosen.options)
    halves, m = Shipped(bundle, head), bundle.manifest
    trained_as = m.bottleneck.spectrum is not None
    codec = fitted_codec(halves, m.widths, m.bottleneck.steps, images[:SCORING], frequencies=trained_as)
    evaluation = evaluate(halves, m.widths, codec, validation, report)

    def fill(folder: Path) -> None:
        (folder / "head.tflite").write_bytes(head)
        for part in m.tail:
            shutil.copyfile(bundle.folder / part.file, folder / part.file)
        save(folder, evaluation.outcomes)

    made = f"isthmus models quantize {m.name} --search {how} --trials {trials} --seed {seed}: {chosen.options}"
    manifest = msgspec.structs.replace(measured(m, evaluation), name=target.name, made_by=f"{made}; {m.made_by}")
    written = writer.write(target, manifest, fill)
    remark = (
        f"The head is int8: of {len(tried)} ways tried, this one answers as the float head in "
        f"{chosen.agreement:.1%} of {SCORING} pictures, widths, exits and tail together."
    )
    card.write(written, evaluation, remark=remark)
    return written
