"""A bundle: one directory with a model in two halves and everything both halves must know of it.

`bundle.toml` is read strictly: unknown keys, wrong hashes and missing files are a `BundleError` that names the file and
the key. Device and server compare the bundle's hash at hello; it covers `bundle.toml`, and through it every file. The same
hash lies beside it in `bundle.sha256`, so that each half alone notices a `bundle.toml` that is not as it was written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models import bundle_check, seal
from isthmus.models.picture_ladder import Input, PictureLadder, Strict, TailPart
from isthmus.proto.bits.spectrum import Spectrum
from isthmus.proto.codec import CodecConfig
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import BundleError
from isthmus.proto.tasks import TASKS, task_called
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.task import Task
from isthmus.proto.temporal.delta import Deltas
from isthmus.proto.vocabulary import OperatingPoint

SCHEMA = 5
"""2 adds what a model that was not trained here needs, 3 features that cross as frequencies, 4 boxes of other forms and
pictures that cross, 5 predictors and frames that are coded against others; all of it optional, so that every older bundle
reads as one of 5."""
ZOO = Path(__file__).parent / "zoo"


class Crossing(Strict, frozen=True):
    """One of several tensors that cross together, by its name in the signatures of head and tail."""

    name: str
    shape: tuple[int, ...]
    """The tensor's shape without the batch."""
    gain: float
    """What crosses is real values / gain: the tensors then share one quantiser."""


class Contest(Strict, frozen=True):
    """For a tail that compares channels: what all of them share does not cross, nor do those far below the greatest."""

    reach: float
    """Channels so far below the greatest, or farther, are all sent as just so far below."""
    top: float
    """The value that the greatest channel is sent as."""


class Bottleneck(Strict, frozen=True):
    """The tensor that crosses, and how it is coded."""

    height: int
    width: int
    channels: int
    zero_point: tuple[float, ...]
    """Mean of each channel, subtracted before quantising."""
    steps: tuple[float, ...]
    """The quantiser's ladder, finest first, in the features' own unit."""
    tables: tuple[tuple[str, ...], ...]
    """Static Huffman code lengths [step][layer], one hex digit for each of 256 bytes."""
    size_fit: tuple[tuple[tuple[float, float, float], ...], ...]
    """Size prediction [step][layer]: bytes = a + b u + c u^2 with u = log2(mean |x - zero point| / step)."""
    tensors: tuple[Crossing, ...] = ()
    """What the (1, N, 1) values consist of, tensor after tensor, channel after channel; none: one tensor `features` of
    (height, width, channels)."""
    contest: Contest | None = None
    spectrum: Spectrum | None = None
    """What is coded are frequencies; steps and size prediction are then in their unit."""
    deltas: Deltas | None = None
    """How a frame is coded against another that the server has answered; none: every frame crosses whole."""

    @property
    def schema(self) -> int:
        """The least that a bundle with it must name: an Isthmus that knows no more reads whatever it can."""
        if self.deltas is not None:
            return 5
        return 3 if self.spectrum is not None else 2

    @property
    def codec(self) -> CodecConfig:
        """What the codec must know, the same on both halves."""
        return CodecConfig(
            height=self.height,
            width=self.width,
            channels=self.channels,
            zero_point=self.zero_point,
            steps=self.steps,
            tables=tuple(tuple(bytes(int(d, 16) for d in table) for table in row) for row in self.tables),
            size_fit=self.size_fit,
            spectrum=self.spectrum,
            deltas=self.deltas,
        )

    @classmethod
    def of(cls, codec: CodecConfig, tensors: tuple[Crossing, ...] = (), contest: Contest | None = None) -> Bottleneck:
        """Describe a bottleneck as `bundle.toml` does."""
        return cls(
            height=codec.height,
            width=codec.width,
            channels=codec.channels,
            zero_point=codec.zero_point,
            steps=codec.steps,
            tables=tuple(tuple("".join(f"{n:x}" for n in table) for table in row) for row in codec.tables),
            size_fit=codec.size_fit,
            tensors=tensors,
            contest=contest,
            spectrum=codec.spectrum,
            deltas=codec.deltas,
        )


class Stage(Strict, frozen=True):
    """A part of the head that ends in an early exit or in the bottleneck, at one width.

    Its signature takes `image` or the `hidden` of the stage before; a later stage that takes `image` is another model. A stage
    without a signature computes nothing: it makes the picture ready, which can be sent from then on.
    """

    width: float
    signature: str
    flops: int
    temperature: float = 1.0
    """Divides the exit's logits before the softmax, so that its confidence is a probability."""
    exit: tuple[str, ...] = ("logits",)
    """The signature's outputs that are its early exit; none: it ends without one."""
    input: Input | None = None
    """The picture it takes, where that is not the bundle's."""
    boxes: Boxes | None = None
    """How the boxes of its early exit are read, where it has an input of its own."""


class Ageing(Strict, frozen=True):
    """How often an answer is right that the tracker carries on, by its age: counted on clips that nothing was trained on."""

    ages_s: tuple[float, ...]
    """Ascending from 0: how much older than a picture the detection behind its answer is."""
    exit: tuple[tuple[float, ...], ...]
    """[width][age], widths ascending: the share of pictures right, answered from the last early exit."""
    server: tuple[tuple[float, ...], ...]
    """The same of the server's best answer."""


class Point(Strict, frozen=True):
    """One operating point with what validation measured of it."""

    width: float
    exit: int | None = None
    step: int | None = None
    layers: int = 0
    accuracy: float = 0.0
    bytes: float = 0.0
    """Mean payload bytes of the layers used; 0 for an exit."""
    temperature: float = 1.0
    """The temperature of the logits behind this point's answer."""
    accuracy_given: tuple[tuple[float, ...], ...] = ()
    """[exit][confidence bin]: accuracy of this point where that exit, at this width, was so confident."""

    @property
    def key(self) -> OperatingPoint:
        """The point in the words of session and scheduler."""
        return OperatingPoint(self.width, self.exit, self.step, self.layers)


class Chance(Strict, frozen=True):
    """A logistic regression of being right on what the exits said, c the class and l the logit of the last one's confidence:

    z = intercept + slope l + classes[c][0] + classes[c][1] l + before[0] a + before[1] l' + before[2] a l', where l' is the
    logit of the exit's before the last, and a is 1 where that said c too.
    """

    intercept: float
    slope: float
    before: tuple[float, float, float] = (0.0, 0.0, 0.0)
    classes: tuple[tuple[float, float], ...] = ()


class Predictor(Strict, frozen=True):
    """How likely each answer at one width is to be right once its last exit has spoken."""

    width: float
    exit: Chance
    """That the last exit is right."""
    server: Chance
    """That the server is right, all ways to send tied together."""
    points: tuple[tuple[tuple[float, float], ...], ...]
    """[step][layers - 1]: intercept and slope on the server's z; apart, the best of noisy tables would look too good."""


class Manifest(Strict, frozen=True):
    """The content of `bundle.toml`."""

    schema: int
    name: str
    task: str
    labels: tuple[str, ...]
    input: Input
    widths: tuple[float, ...]
    stages: tuple[tuple[Stage, ...], ...]
    """[stage][width], widths as in `widths`."""
    bottleneck: Bottleneck
    tail_flops: int
    confidence_edges: tuple[float, ...]
    """Inner edges of the confidence bins of `accuracy_given`, ascending."""
    points: tuple[Point, ...]
    files: dict[str, str]
    """The sha256 of each file, by name."""
    made_by: str = ""
    """The command, seed and version that made it."""
    reference: Literal["labels", "uncut"] = "labels"
    """What accuracies are measured against: true labels, or the answers of the model before it was cut."""
    tail: tuple[TailPart, ...] = (TailPart("tail.onnx", "onnx"),)
    """The server's half; the first part takes the features."""
    boxes: Boxes | None = None
    """How a detector's outputs are read."""
    picture: PictureLadder | None = None
    """How the picture itself crosses, where it can."""
    predictors: tuple[Predictor, ...] = ()
    """One for each width, where answers are classes and validation was large enough; else the points' bins serve."""
    ageing: Ageing | None = None
    """How boxes age that are carried on; a bundle without it has nothing tracked."""

    @property
    def answers(self) -> Task:
        """The task, which packs and reads the tail's outputs. Raises BundleError for one that this Isthmus does not know."""
        return self._task(self.boxes, self.input)

    def exit_answers(self, stage: Stage) -> Task:
        """How the outputs of a stage's early exit are read. Raises BundleError as `answers` does."""
        return self.answers if stage.input is None else self._task(stage.boxes, stage.input)

    def picture_answers(self, ladder: PictureLadder) -> Task:
        """How the outputs of the model that is given the picture are read. Raises BundleError as `answers` does."""
        return self._task(ladder.boxes, ladder.input)

    @property
    def picture_stage(self) -> int:
        """The stage after which the picture can be sent: the one without a signature, or else the last."""
        silent = (i for i, stage in enumerate(self.stages) if not stage[0].signature)
        return next(silent, len(self.stages) - 1)

    def _task(self, boxes: Boxes | None, picture: Input) -> Task:
        if self.task not in TASKS:
            raise BundleError(f"{self.name}: task '{self.task}' unknown; this Isthmus knows {', '.join(TASKS)}")
        return task_called(self.task, boxes, picture.shape, len(self.labels) or None)

    def step_name(self, step: int) -> str:
        """How a step of the ladder is called: the quantiser's step, or the picture's format and quality."""
        steps = self.bottleneck.steps
        if step < len(steps) or self.picture is None:
            return f"{steps[step]:.4g}"
        return self.picture.named(step - len(steps))

    def name_of(self, label: int) -> str:
        """The name of a class."""
        return self.labels[label] if label < len(self.labels) else str(label)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    folder: Path
    manifest: Manifest
    sha256: bytes

    @property
    def head_path(self) -> Path:
        """The head: one .tflite with a signature for each stage and width."""
        return self.folder / "head.tflite"

    @property
    def tail_path(self) -> Path:
        """The first part of the tail."""
        return self.folder / self.manifest.tail[0].file

    @property
    def codec(self) -> CodecConfig:
        """What the codec must know, the same on both halves."""
        codec, picture = self.manifest.bottleneck.codec, self.manifest.picture
        if picture is None:
            return codec
        first, *others = picture.codecs
        return replace(codec, picture=first, views=tuple(others))

    def stage(self, index: int, width: float) -> Stage:
        """Stage `index` at `width`; BundleError if the bundle has no such width."""
        for stage in self.manifest.stages[index]:
            if stage.width == width:
                return stage
        raise BundleError(f"{self.folder.name}: no width {width}; it has {self.manifest.widths}")

    def outcomes(self) -> Outcomes:
        """The outcome table: what every operating point really answered for each validation sample."""
        with np.load(self.folder / "outcomes.npz", allow_pickle=False) as table:
            return Outcomes(**{name: table[name] for name in Outcomes.__dataclass_fields__ if name in table})


@dataclass(frozen=True)
class Outcomes:
    """Validation samples (N) by operating points (P), in the order of `Manifest.points`."""

    truth: NDArray[np.uint8 | np.uint16]
    """(N,) true classes; the uncut model's, where that is the reference."""
    label: NDArray[np.uint8 | np.uint16]
    """(N, P) the class that the point answers."""
    confidence: NDArray[np.float16]
    """(N, P) its calibrated probability."""
    layer_bytes: NDArray[np.uint16 | np.uint32]
    """(N, W, S, L) payload bytes by width, step and layer."""
    score: NDArray[np.float16] | None = None
    """(N, P) how well the answer agrees with the truth, 0 to 1, where answers are masks or boxes."""
    calibrating: NDArray[np.bool_] | None = None
    """(N,) the samples that temperatures, tables and predictors were fitted on; the others judge. None: not told apart."""
    lags: NDArray[np.uint16] | None = None
    """(G,) ascending: so many samples before a sample lies the one that `delta_bytes` is coded against."""
    delta_bytes: NDArray[np.uint32] | None = None
    """(N, W, G, S, L) payload bytes of the delta that stands for so many layers, where samples are the frames of clips in
    their order; 0 where its clip has no such frame. See `proto.temporal.sequences.sizes`."""


def find(name: str) -> Path:
    """The folder of a bundle: a path, or the name of one in the zoo. BundleError lists what there is."""
    for folder in (Path(name), ZOO / name):
        if (folder / seal.FILE).is_file():
            return folder
    known = sorted(p.parent.name for p in ZOO.glob("*/bundle.toml"))
    raise BundleError(f"{name}: no bundle of this name or path; the zoo has {', '.join(known) or 'none'}")


def load(name: str, *, half: Literal["head", "tail"] | None = None) -> Bundle:
    """Read and verify the bundle called `name` (zoo name or path): all of it, or what one half needs.

    Raises BundleError naming the file and the key.
    """
    folder = find(name)
    path = folder / seal.FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    manifest = _parse(path, raw)
    seal.check(path, hashlib.sha256(raw).hexdigest())
    files = {"head": ("head.tflite",), "tail": tail_files(manifest), None: tuple(manifest.files)}
    for file in files[half]:
        seal.verify(folder / file, manifest.files.get(file))
    return Bundle(folder, manifest, hashlib.sha256(raw).digest())


def tail_files(manifest: Manifest) -> tuple[str, ...]:
    """The files that the server's half consists of, beside `bundle.toml`."""
    parts = manifest.tail if manifest.picture is None else (*manifest.tail, *manifest.picture.tail)
    return tuple(part.file for part in parts)


def _parse(path: Path, raw: bytes) -> Manifest:
    try:
        table = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BundleError(f"{path}: not valid TOML ({error})") from error
    if table.get("schema") not in range(1, SCHEMA + 1):
        raise BundleError(
            f"{path}: schema {table.get('schema')}, this Isthmus reads 1 to {SCHEMA}; install the newer one"
        )
    try:
        manifest = msgspec.convert(table, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{path}: {error}") from error
    if fault := bundle_check.fault(manifest):
        raise BundleError(f"{path}: {fault}; fetch the bundle again")
    return manifest
