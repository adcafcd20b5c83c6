"""Which frame is referred to: what the server has answered, and must still hold."""

from __future__ import annotations

import pytest

from isthmus.device.temporal.acknowledged import Acknowledged
from isthmus.proto.temporal.reconstruction import HELD
from isthmus.proto.vocabulary import Reference, StageResult


def connected(references: int = HELD) -> Acknowledged:
    known = Acknowledged()
    known.on_connected(references)
    return known


def sent(known: Acknowledged, *frames: int, layers: int = 2, delta: bool = False) -> None:
    for frame in frames:
        known.on_sent(frame, layers, delta=delta)


def test_the_newest_that_was_answered() -> None:
    known = connected()
    sent(known, 1, 2, 3)
    assert known.newest is None
    known.on_result(2, 1)
    assert known.newest == Reference(2, 1)
    known.on_result(1, 2)  # overtaken
    assert known.newest == Reference(2, 1)
    known.on_result(3, 2)
    assert known.newest == Reference(3, 2)


@pytest.mark.parametrize(("frame", "layers"), [(7, 1), (1, 3), (1, 0)])
def test_a_result_that_cannot_be_is_none(frame: int, layers: int) -> None:
    """A frame that was never sent, layers that were not."""
    known = connected()
    sent(known, 1)
    known.on_result(frame, layers)
    assert known.newest is None


@pytest.mark.parametrize("references", [1, 4, HELD])
def test_what_the_server_has_forgotten_is_not_referred_to(references: int) -> None:
    known = connected(references)
    sent(known, 0)
    known.on_result(0, 2)
    for frame in range(1, references):
        assert known.newest == Reference(0, 2)
        sent(known, frame)
    assert known.newest == Reference(0, 2)
    sent(known, 99)
    assert known.newest is None


def test_a_server_that_holds_none_or_more_than_we_do() -> None:
    for references, frames in ((0, 1), (1000, HELD)):
        known = connected(references)
        sent(known, 0)
        known.on_result(0, 2)
        sent(known, *range(1, frames))
        assert (known.newest is None) == (references == 0)
        sent(known, 1000)
        assert known.newest is None


def test_a_stream_that_ends_takes_everything_with_it() -> None:
    known = connected()
    sent(known, 1)
    known.on_result(1, 2)
    known.on_connected(HELD)
    assert known.newest is None
    known.on_result(1, 2)  # of the stream before
    assert known.newest is None


def test_only_a_refused_delta_shakes_belief() -> None:
    """A damaged layer of a whole frame says nothing of what the server holds."""
    known = connected()
    sent(known, 1, 2)
    known.on_result(1, 2)
    known.on_refused(2)
    known.on_refused(77)
    assert known.newest == Reference(1, 2)
    sent(known, 3, delta=True)
    known.on_refused(3)
    assert known.newest is None
    assert not known.holds(Reference(1, 2))
    known.on_result(2, 2)
    assert known.newest == Reference(2, 2)


def test_the_lesser_of_both_sizes_is_what_the_policy_sees() -> None:
    known = connected()
    sent(known, 1)
    known.on_result(1, 2)
    result = StageResult(
        2,
        1,
        1.0,
        None,
        0.0,
        ((100, 200), (50, 100), (900,)),
        reference=Reference(1, 2),
        delta_bytes=((30, 60), (70, 140)),
    )
    priced = known.priced(result)
    assert priced.layer_bytes == ((30, 30), (50, 90), (900,))
    deltas = [[priced.as_delta(step, layers) for layers in (1, 2)] for step in (0, 1)]
    assert deltas == [[True, True], [False, True]]
    assert not priced.as_delta(2, 1)  # the picture
    assert known.share == pytest.approx(0.8 + 0.2 * (60 + 140) / 450)


def test_a_reference_that_was_lost_while_the_stage_ran_is_no_way() -> None:
    known = connected()
    sent(known, 1)
    known.on_result(1, 2)
    result = StageResult(2, 1, 1.0, None, 0.0, ((100, 200),), reference=Reference(1, 2), delta_bytes=((30, 60),))
    known.on_connected(HELD)
    priced = known.priced(result)
    assert priced.layer_bytes == ((100, 200),)
    assert priced.reference is None
    assert not priced.as_delta(0, 2)
