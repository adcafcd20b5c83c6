"""What a session asks of its host, as data: the session appends them, the agent (or the emulator) performs them in order."""

from __future__ import annotations

from msgspec import Struct

from isthmus.device.tracking.tracks import Place
from isthmus.proto.vocabulary import Answer, Guess, Reference


class RunFilter(Struct, frozen=True):
    """Show the frame to the neural filter; report `Session.on_filter`. It counts as a stage that is outstanding."""

    frame_id: int


class RunStage(Struct, frozen=True):
    """Run one stage of the head; report `Session.on_stage`. At most one is outstanding at any time.

    The result of the last stage says what its features take coded against `reference` too, where there is one.
    """

    frame_id: int
    stage: int
    width: float
    reference: Reference | None = None


class Send(Struct, frozen=True):
    """Encode the frame's features at `step` (once, at its first layer), write this layer; report `Session.on_sent`.

    It goes to `server`. `budget_s` is what is left to the answer's due time at the moment the action was appended. With a
    `reference` the one payload is a delta that stands for `layers` layers.
    """

    frame_id: int
    step: int
    layer: int
    last: bool
    budget_s: float
    layers: int = 1
    reference: Reference | None = None
    server: str = ""


def sends(
    frame_id: int, step: int, layers: int, budget_s: float, reference: Reference | None, server: str
) -> list[Send]:
    """What brings so many layers of a frame to a server: one after the other, or the one delta that stands for them."""
    if reference is not None:
        return [Send(frame_id, step, 0, True, budget_s, layers, reference, server)]
    return [Send(frame_id, step, i, i == layers - 1, budget_s, server=server) for i in range(layers)]


class Beat(Struct, frozen=True):
    """Write a heartbeat to `server`."""

    sequence: int
    server: str = ""


class Emit(Struct, frozen=True):
    """Hand the answer to the sinks: exactly one for every frame."""

    answer: Answer
    local: Guess | None = None
    """What the device's last early exit said of the picture that the answer is of."""


class Forget(Struct, frozen=True):
    """Nothing will be asked of this frame again; free its pixels and features. Exactly one, after its `Emit`."""

    frame_id: int


class Dial(Struct, frozen=True):
    """Try once to open a stream to `server`; report `Session.on_connected` and, whenever it is over, `on_disconnected`."""

    server: str


class HangUp(Struct, frozen=True):
    """Drop the stream to `server`, which the session counts as down already; report `Session.on_disconnected`."""

    server: str


class Follow(Struct, frozen=True):
    """Follow places from the first frame's picture to the last one's, frame by frame; report `Session.on_followed`.

    At most one is outstanding at any time; a stage may run beside it.
    """

    frame_ids: tuple[int, ...]
    places: tuple[Place, ...]


Action = RunFilter | RunStage | Send | Beat | Emit | Forget | Dial | HangUp | Follow
