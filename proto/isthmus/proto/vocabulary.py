"""The frozen vocabulary: what travels between the rooms. SI units, no behaviour beyond derived values."""

from __future__ import annotations

import enum
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from isthmus.proto.compat import StrEnum


class Frame(Struct, frozen=True):
    """One picture's place in time, on its device's own clock. The pixels stay with whoever captured them."""

    id: int
    captured_s: float
    deadline_s: float
    label: int | None = None
    """The true class, where the source knows it; never seen by session or scheduler."""


class OperatingPoint(Struct, frozen=True):
    """How a frame is answered: at `width`, from `exit` (0-based) on the device, or offloaded when `exit` is None.

    `step` indexes the quantiser's ladder (0 = finest) and `layers` counts the layers that the server uses.
    """

    width: float
    exit: int | None = None
    step: int | None = None
    layers: int = 0


class Mask(Struct, frozen=True):
    """A class for each pixel of a picture, row by row, one byte each, deflated (RFC 1950)."""

    height: int
    width: int
    deflated: bytes
    covered: dict[int, float]
    """The share of the picture that each class covers."""


class Box(Struct, frozen=True):
    """Something in a picture, and where: in shares of its height and width, from its top left corner."""

    label: int
    score: float
    top: float
    left: float
    bottom: float
    right: float


class Keypoint(Struct, frozen=True):
    """A point of a body, and how sure it is to be there: in shares of the picture, from its top left corner."""

    top: float
    left: float
    score: float


class Pose(Struct, frozen=True):
    """The keypoints of one body, in its network's own order."""

    points: tuple[Keypoint, ...]


class Depth(Struct, frozen=True):
    """A value for each pixel of a picture, in the network's own unit: low + (high - low) * level / 255."""

    height: int
    width: int
    low: float
    high: float
    deflated: bytes
    """The levels row by row, one byte each: the difference from its left neighbour, modulo 256; all of it deflated (RFC 1950)."""


class Embedding(Struct, frozen=True):
    """A vector whose direction tells what a picture shows: `scale` times each of `values`, which are signed bytes."""

    scale: float
    values: bytes


class Values(Struct, frozen=True):
    """A network's outputs as they are."""

    shapes: tuple[tuple[int, ...], ...]
    """The shape of each output, without the batch."""
    scales: tuple[float, ...]
    """By output: what its numbers are in units of."""
    deflated: bytes
    """The numbers of all outputs one after the other, float16, little-endian, deflated (RFC 1950)."""


Detail = Mask | tuple[Box, ...] | Pose | Depth | Embedding | Values


class Guess(Struct, frozen=True):
    """An answer that somebody holds: a class, and the calibrated probability that it is right.

    What is more than a class is its `detail`. The class is then the one that covers most of a mask, or the surest box's; poses
    and whatever else has no classes are of class 0.
    """

    label: int
    confidence: float
    detail: Detail | None = None


class Placing(NamedTuple):
    """Where a whole picture lies within the one that a network is given, in shares of the latter."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0

    def outward(self, guess: Guess) -> Guess:
        """An answer to what the network was given, its places in shares of the whole picture; boxes are cut off at its edges."""
        if self == Placing():
            return guess
        if isinstance(guess.detail, tuple):
            return replace(guess, detail=tuple(map(self._whole, guess.detail)))
        if isinstance(guess.detail, Pose):
            return replace(guess, detail=Pose(tuple(map(self._moved, guess.detail.points))))
        return guess

    def _moved(self, point: Keypoint) -> Keypoint:
        return Keypoint((point.top - self.top) / self.height, (point.left - self.left) / self.width, point.score)

    def _whole(self, box: Box) -> Box:
        top, bottom = ((edge - self.top) / self.height for edge in (box.top, box.bottom))
        left, right = ((edge - self.left) / self.width for edge in (box.left, box.right))
        return Box(box.label, box.score, *(min(max(edge, 0.0), 1.0) for edge in (top, left, bottom, right)))


class Reference(Struct, frozen=True):
    """A frame that the server holds as far as it used its layers, so that another may be coded against it."""

    frame_id: int
    layers: int


class StageResult(Struct, frozen=True):
    """What one stage of the head produced for one frame.

    `guess` is what the last early exit so far has said, None when there was none.
    `layer_bytes[step][layer]` predicts the payload sizes (bytes) of what may cross; None before anything may, and no layers for
    a step that may not yet: a picture may cross before the head has made its features.
    `placings[step]` tells where the picture lies in what the server then answers about; none: everywhere as a whole.
    `delta_bytes[step][layers - 1]` is what one message takes that stands for so many layers, coded against `reference`;
    empty where there is no reference.
    """

    frame_id: int
    stage: int
    width: float
    guess: Guess | None
    compute_s: float
    layer_bytes: tuple[tuple[int, ...], ...] | None = None
    placings: tuple[Placing, ...] = ()
    reference: Reference | None = None
    delta_bytes: tuple[tuple[int, ...], ...] = ()

    @property
    def confidence(self) -> float:
        """The guess's confidence; 0 where there is no guess."""
        return self.guess.confidence if self.guess is not None else 0.0

    def as_delta(self, step: int, layers: int) -> bool:
        """Whether the sizes of these layers are those of the one delta that stands for them."""
        if self.layer_bytes is None or step >= len(self.delta_bytes):
            return False
        return self.delta_bytes[step][layers - 1] == sum(self.layer_bytes[step][:layers])


class FilterResult(Struct, frozen=True):
    """What the neural filter made of one frame."""

    frame_id: int
    dismissed: bool
    """There is nothing of interest: the head need not see it."""
    guess: Guess | None
    """What a dismissed frame is answered with; None where the bundle has no word for nothing."""
    compute_s: float


class Load(Struct, frozen=True):
    """What a server says of itself with every message."""

    queue: int = 0
    """Frames waiting."""
    wait_s: float = 0.0
    """Expected wait of a frame that arrived now."""
    tail_s: float = 0.0
    """Time of the tail at the batch size now in use, 95th percentile."""


class ServerTimings(Struct, frozen=True):
    """Where a frame's time went on the server."""

    receive_s: float = 0.0
    """The time between the arrivals of its first and its last layer."""
    queue_s: float = 0.0
    tail_s: float = 0.0
    send_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Everything between the first layer's arrival and the result's departure."""
        return self.receive_s + self.queue_s + self.tail_s + self.send_s


class AnswerSource(StrEnum):
    """Where an answer came from."""

    EXIT = "exit"
    SERVER = "server"
    NONE = "none"
    """No half had an answer at the deadline: said honestly, with no label."""
    REPEAT = "repeat"
    """The similar-frame gate: the last picture's answer, since this one shows the same."""
    FILTER = "filter"
    """The neural filter: nothing of interest."""
    TRACK = "track"
    """The tracker: earlier detections' boxes, carried on to this picture."""


class Reason(StrEnum):
    """Why the answer came from there."""

    CONFIDENT = "confident"
    """The exit was expected to be worth as much as anything the link could bring back."""
    RETURNED = "returned"
    """The server's answer came back in time."""
    DEADLINE = "deadline"
    """Offloaded, and the deadline came first."""
    LATE = "late"
    """The server said that it could not make it."""
    BUSY = "busy"
    """The server would not admit the frame."""
    INVALID = "invalid"
    """The server could not decode the frame."""
    DISCONNECTED = "disconnected"
    """No server to offload to."""
    LINK = "link"
    """The link would not have brought an answer back in time: the frame was not sent, and there was no early exit to answer
    from; or it was sent for the frames after it alone, to which what is tracked is carried on."""
    OVERLOADED = "overloaded"
    """The device was still occupied with other frames."""
    UNCHANGED = "unchanged"
    """The picture shows what the last answered one showed."""
    NOTHING = "nothing"
    """The filter found nothing of interest."""
    TRACKED = "tracked"
    """What is tracked was expected to be worth as much as another detection."""


class Fate(StrEnum):
    """What became of a picture that was captured: exactly one of these."""

    ANSWERED = "answered"
    """From an early exit or by the server, for itself."""
    REPEATED = "repeated"
    """It shows what the last answered one showed."""
    TRACKED = "tracked"
    """What earlier detections found was carried on to it."""
    DISMISSED = "dismissed"
    """The neural filter found nothing of interest."""
    SKIPPED = "skipped"
    """Let go before anything was made of it: a newer one replaced it (stale), or it came sooner than was asked for (rate)."""
    REFUSED = "refused"
    """Taken, and no half had an answer: said honestly, with the reason."""


FATES = {
    AnswerSource.EXIT: Fate.ANSWERED,
    AnswerSource.SERVER: Fate.ANSWERED,
    AnswerSource.REPEAT: Fate.REPEATED,
    AnswerSource.TRACK: Fate.TRACKED,
    AnswerSource.FILTER: Fate.DISMISSED,
    AnswerSource.NONE: Fate.REFUSED,
}
"""The fate of a frame by where its answer came from."""


class Skipped(Struct, frozen=True):
    """How many pictures were let go."""

    stale: int = 0
    """A newer one came while the device was occupied, or they were too old to be answered by their deadline."""
    rate: int = 0
    """They came sooner after the one before than was asked for."""


NONE_SKIPPED = Skipped()


class Timings(Struct, frozen=True):
    """Where one frame's latency went; zero where it never was. `network_s` is both directions together."""

    wait_s: float = 0.0
    """Before the head began."""
    head_s: float = 0.0
    encode_s: float = 0.0
    network_s: float = 0.0
    server: ServerTimings = ServerTimings()


class Answer(Struct, frozen=True):
    """The one answer to a frame, given by its deadline."""

    frame_id: int
    label: int | None
    confidence: float
    source: AnswerSource
    reason: Reason
    point: OperatingPoint | None
    answered_s: float
    """The time of the answer on the device's clock, as are the frame's own times."""
    latency_s: float
    on_time: bool
    bytes_up: int
    timings: Timings = Timings()
    detail: Detail | None = None
    age_s: float = 0.0
    """How much older the picture is that the answer is really of; more than 0 only where one is repeated or carried on."""
    server: str | None = None
    """Which server gave it, by the name that the device dials; None: none did."""
    promised: float | None = None
    """The probability of being back in time that its features were sent with; None where none were, or nobody asked."""


class LinkState(enum.Enum):
    """What the session knows of its server."""

    DOWN = "down"
    UP = "up"
    DRAINING = "draining"
