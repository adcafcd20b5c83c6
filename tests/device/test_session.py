"""The session over a real link, codec and batcher, in virtual time: lab protocols."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from isthmus.device.actions import Beat, Emit, Forget, RunStage, Send
from isthmus.device.capture.gate import Gate, sketched
from isthmus.device.scheduler import AlwaysOffload, LocalOnly
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.proto import messages
from isthmus.proto.tasks.detection import Detection
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    Box,
    Frame,
    Guess,
    Load,
    Placing,
    Reason,
    ServerTimings,
    StageResult,
)
from pair import LABEL_LOCAL, LABEL_SERVER, Pair, catalogue, silent


def sources(answers: list[Answer]) -> Counter[str]:
    return Counter(a.source.value for a in answers)


def reasons(answers: list[Answer]) -> Counter[str]:
    return Counter(a.reason.value for a in answers)


def test_a_good_link_brings_the_servers_answers() -> None:
    pair = Pair().connected().run(20)
    late = pair.between(1, 19)
    assert sources(late)["server"] > 0.97 * len(late)
    assert {a.label for a in late if a.source is AnswerSource.SERVER} == {LABEL_SERVER}
    assert all(a.on_time for a in late)


def test_a_sure_exit_is_not_sent() -> None:
    pair = Pair(confidence=lambda _: 0.99).connected().run(10)
    assert set(reasons(pair.between(1, 9))) == {"confident"}
    assert not pair.head.sent


def test_without_a_server_the_device_answers() -> None:
    pair = Pair().run(10)
    assert set(reasons(pair.between(0, 9))) == {"disconnected"}
    assert {a.label for _, a in pair.answers} == {LABEL_LOCAL}


def test_a_blackout_costs_no_answer_and_the_server_is_back_within_a_second() -> None:
    pair = Pair((20, 8, 8, 20), (10, 0, 0, 20), (3600, 8, 8, 20)).connected().run(40)
    everything = pair.between(0, 39)
    assert all(a.on_time and a.label is not None for a in everything)
    assert sources(pair.between(21, 29.8)) == {"exit": len(pair.between(21, 29.8))}
    assert sources(pair.between(31, 39))["server"] > 0.9 * len(pair.between(31, 39))


def test_in_a_blackout_the_device_stops_sending_into_the_void() -> None:
    pair = Pair((10, 8, 8, 20), (20, 0, 0, 20)).connected().run(12)
    before = len(pair.head.sent)
    pair.run(8)
    assert len(pair.head.sent) - before < 20  # of 120 frames


def test_a_narrow_link_is_not_flooded() -> None:
    """24 kbit/s carries 3 kB/s; everything at the finest step would be 5 kB/s."""
    slow = (3600.0, 0.024, 1.0, 40.0)
    greedy = Pair(slow, policy="always-offload", deadline_s=0.4).connected().run(30)
    ours = Pair(slow, deadline_s=0.4).connected().run(30)
    assert sources(greedy.between(10, 29))["server"] < 0.2 * len(greedy.between(10, 29))
    assert sources(ours.between(10, 29))["server"] > 0.4 * len(ours.between(10, 29))
    assert all(a.on_time for a in ours.between(0, 29))


def mute(*rows: tuple[float, float, float, float], policy: str = "expected-utility") -> Pair:
    return Pair(*rows, policy=policy, known=silent(), confidence=lambda _: None)


@pytest.mark.parametrize("policy", ["expected-utility", "always-offload"])
def test_without_early_exits_the_server_answers_or_nobody_does(policy: str) -> None:
    """A late frame is answered late, honestly: no label, no half named, and the reason."""
    pair = mute((10, 8, 8, 20), (10, 0, 0, 20), (3600, 8, 8, 20), policy=policy).connected().run(30)
    assert sources(pair.between(1, 9))["server"] > 0.95 * len(pair.between(1, 9))
    cut = pair.between(10.5, 19.8)
    assert sources(cut) == {"none": len(cut)}
    assert set(reasons(cut)) <= {"deadline", "link", "disconnected", "busy"}
    assert all(a.label is None and a.point is None and a.on_time for a in cut)
    assert sources(pair.between(22, 29))["server"] > 0.9 * len(pair.between(22, 29))


def test_without_early_exits_or_a_server_every_frame_says_so() -> None:
    pair = mute().run(5)
    assert reasons(pair.between(0, 4.9)) == {"disconnected": len(pair.between(0, 4.9))}
    assert {a.source for _, a in pair.answers} == {AnswerSource.NONE}


def test_a_server_that_dies_is_answered_for_at_once() -> None:
    pair = Pair().connected().run(5.06)
    pair.cut()
    away = [a for _, a in pair.answers if a.reason is Reason.DISCONNECTED and a.answered_s == pair.now]
    assert all(a.source is AnswerSource.EXIT for a in away)
    pair.run(5)
    assert set(reasons(pair.between(5.2, 9.9))) == {"disconnected"}
    pair.server.revive(pair.now)
    pair.run(5)
    assert "server" in sources(pair.between(11, 14))


def test_a_draining_server_gets_nothing_new() -> None:
    pair = Pair().connected().run(5)
    pair.server.core.drain(2.0, now=pair.now)
    pair.server.perform(pair.now)
    pair.run(5)
    assert sources(pair.between(5.2, 9.9)) == {"exit": len(pair.between(5.2, 9.9))}


def test_more_frames_than_the_head_can_take_are_answered_for_honestly() -> None:
    pair = Pair(fps=400, policy="local-only", deadline_s=0.05).run(3)
    answered = pair.between(0, 2.8)
    assert all(a.on_time for a in answered)
    assert {a.reason for a in answered if a.source is AnswerSource.NONE} == {Reason.OVERLOADED}
    assert sources(answered)["exit"] > 0.1 * len(answered)


def test_a_silent_server_is_given_up_and_called_again() -> None:
    """A frozen peer keeps its connection open: only our own clock tells."""
    session = Session(catalogue(), AlwaysOffload(catalogue()), StageTimes(((0.004, 0.01), (0.003, 0.008))))
    session.on_connected(messages.Welcome("edge", 8, 10_000), now=0.0)
    asked: list[str] = []
    while (due := session.due_at) is not None and due < 10 and "HangUp" not in asked:
        session.step(due)
        asked += [type(a).__name__ for a in session.actions()]
        given_up_s = due
    assert asked[-1] == "HangUp"
    assert 3 < given_up_s < 5


def test_never_more_in_flight_than_the_credits() -> None:
    pair = (
        Pair((3600, 0.5, 1, 400), fps=50, deadline_s=0.9, stream_credits=3, policy="always-offload").connected().run(10)
    )
    assert reasons(pair.between(2, 9))["busy"] > 0
    assert "busy" not in {a.reason for _, a in pair.answers if a.source is AnswerSource.SERVER}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (messages.Late(0), Reason.LATE),
        (messages.Busy(0, 0.5), Reason.BUSY),
        (messages.Invalid(0, 0, "checksum"), Reason.INVALID),
        (messages.Result(0, 2, (float("nan"),) * 4, ServerTimings()), Reason.INVALID),
    ],
)
def test_a_refusal_is_answered_from_the_exit_at_once(reply: messages.ServerMessage, reason: Reason) -> None:
    session = Session(catalogue(), AlwaysOffload(catalogue()), StageTimes(((0.004, 0.01), (0.003, 0.008))))
    session.on_connected(messages.Welcome("edge", 8, 10_000), now=0.0)
    session.on_frame(Frame(0, 0.0, 0.2), now=0.0)
    for stage in (0, 1):
        sizes = ((100, 200), (80, 150)) if stage else None
        session.on_stage(StageResult(0, stage, 1.0, Guess(LABEL_LOCAL, 0.6), 0.01, sizes), now=0.02)
    assert sum(isinstance(a, Send) for a in session.actions()) == 2
    session.on_message(reply, now=0.05)
    emit, forget = session.actions()
    assert isinstance(emit, Emit)
    assert (emit.answer.source, emit.answer.reason, emit.answer.label) == (AnswerSource.EXIT, reason, LABEL_LOCAL)
    assert isinstance(forget, Forget)


def test_the_server_s_boxes_are_placed_in_the_whole_picture_and_so_is_their_repetition() -> None:
    """A tall picture stands in the middle half of what the server is given; a box there at 0.25 to 0.5 is its left half."""
    known = replace(catalogue(), task=Detection())
    times = StageTimes(((0.004, 0.01), (0.003, 0.008)))
    session = Session(known, AlwaysOffload(known), times, gate=Gate(2.0, 60.0))
    session.on_connected(messages.Welcome("edge", 8, 10_000), now=0.0)
    sketch = sketched(np.zeros((80, 40, 3), np.uint8))
    session.on_frame(Frame(0, 0.0, 0.2), now=0.0, sketch=sketch)
    for stage in (0, 1):
        sizes, placings = (((100, 200), (80, 150)), (Placing(0, 0.25, 1, 0.5),) * 2) if stage else (None, ())
        session.on_stage(StageResult(0, stage, 1.0, Guess(0, 0.6, ()), 0.01, sizes, placings), now=0.02)
    session.actions()
    packed = np.array([[2, 0.75, 0.5, 0.25, 1.0, 0.5]], "<f4").tobytes()
    session.on_message(messages.Result(0, 2, packed, ServerTimings()), now=0.05)
    session.on_frame(Frame(1, 0.1, 0.3), now=0.1, sketch=sketch)
    answers = [action.answer for action in session.actions() if isinstance(action, Emit)]
    assert [answer.source for answer in answers] == [AnswerSource.SERVER, AnswerSource.REPEAT]
    assert [answer.detail for answer in answers] == [(Box(2, 0.75, 0.5, 0.0, 1.0, 0.5),)] * 2


def test_after_busy_nothing_is_sent_until_it_is_worth_trying() -> None:
    session = Session(catalogue(), AlwaysOffload(catalogue()), StageTimes(((0.004, 0.01), (0.003, 0.008))))
    session.on_connected(messages.Welcome("edge", 8, 10_000), now=0.0)
    session.on_message(messages.Busy(99, 0.5), now=0.0)

    def sends(frame_id: int, now: float) -> int:
        session.on_frame(Frame(frame_id, now, now + 0.2), now=now)
        for stage in (0, 1):
            sizes = ((100, 200), (80, 150)) if stage else None
            session.on_stage(StageResult(frame_id, stage, 1.0, Guess(0, 0.6), 0.01, sizes), now=now + 0.02)
        return sum(isinstance(a, Send) for a in session.actions())

    assert sends(0, 0.3) == 0
    assert sends(1, 0.6) == 2


def test_a_damaged_refinement_leaves_the_base_at_work() -> None:
    session = Session(catalogue(), AlwaysOffload(catalogue()), StageTimes(((0.004, 0.01), (0.003, 0.008))))
    session.on_connected(messages.Welcome("edge", 8, 10_000), now=0.0)
    session.on_frame(Frame(0, 0.0, 0.2), now=0.0)
    for stage in (0, 1):
        sizes = ((100, 200), (80, 150)) if stage else None
        session.on_stage(StageResult(0, stage, 1.0, Guess(LABEL_LOCAL, 0.6), 0.01, sizes), now=0.02)
    session.actions()
    session.on_message(messages.Invalid(0, 1, "checksum"), now=0.04)
    assert not session.actions()
    session.on_message(messages.Result(0, 1, (0.0, 5.0, 0.0, 0.0), ServerTimings()), now=0.06)
    emit = session.actions()[0]
    assert isinstance(emit, Emit)
    assert emit.answer.source is AnswerSource.SERVER
    assert emit.answer.point is not None
    assert emit.answer.point.layers == 1


def test_a_host_that_wakes_up_late_is_woken_earlier() -> None:
    """Timers that come 7 ms late, and a guard of 4: the first deadlines are missed, then none."""
    known = catalogue()
    session = Session(known, LocalOnly(known), StageTimes(((0.004, 0.01),) * 2))
    on_time = []
    for frame_id in range(40):
        session.on_frame(Frame(frame_id, frame_id, frame_id + 0.1), now=frame_id)
        due = session.due_at
        assert due is not None
        assert due >= frame_id + 0.075, "the guard takes a quarter of the time at most"
        session.step(due + 0.007)
        on_time += [action.answer.on_time for action in session.actions() if isinstance(action, Emit)]
    assert len(on_time) == 40
    assert not on_time[0]
    assert all(on_time[3:])


def test_a_host_whose_heartbeats_go_out_late_is_woken_earlier_from_the_first_deadline_on() -> None:
    """Timers that come 9 ms late, which nobody notices before the first frame that is answered at its deadline."""
    known = catalogue()
    session = Session(known, LocalOnly(known), StageTimes(((0.004, 0.01),) * 2))
    session.on_connected(messages.Welcome("edge", 8, 1000, Load()), now=0.0)
    now = 0.0
    while now < 3.0:
        due = session.due_at
        assert due is not None
        session.step(now := due + 0.009)
        beats = [action.sequence for action in session.actions() if isinstance(action, Beat)]
        for sequence in beats:
            session.on_message(messages.ServerHeartbeat(sequence, Load()), now=now)
    session.on_frame(Frame(0, now, now + 0.1), now=now)
    due = session.due_at
    assert due is not None
    session.step(due + 0.009)
    (emit,) = (action for action in session.actions() if isinstance(action, Emit))
    assert emit.answer.on_time


def test_a_stage_that_fails_is_answered_from_the_exit_before_it() -> None:
    known = catalogue()
    session = Session(known, LocalOnly(known), StageTimes(((0.004, 0.01),) * 2))
    session.on_frame(Frame(0, 0.0, 0.2), now=0.0)
    session.on_stage(StageResult(0, 0, 1.0, Guess(LABEL_LOCAL, 0.6), 0.01), now=0.02)
    session.actions()
    session.on_stage_failed(0, now=0.03)
    emit, _ = session.actions()
    assert isinstance(emit, Emit)
    assert (emit.answer.source, emit.answer.reason) == (AnswerSource.EXIT, Reason.INVALID)
    session.on_frame(Frame(1, 0.1, 0.3), now=0.1)
    assert isinstance(session.actions()[0], RunStage), "the head is free again"


def test_a_wider_head_is_not_run_where_frames_come_faster_than_it() -> None:
    pair = Pair(fps=60, policy="expected-utility", stages_s=((0.002, 0.02), (0.002, 0.02))).run(5)
    assert {a.point.width for a in pair.between(1, 4) if a.point} == {0.5}


def test_the_same_run_twice_is_the_same_to_the_last_answer() -> None:
    rows = ((5, 0.2, 1, 60), (5, 4, 4, 30), (5, 0, 0, 30))
    assert Pair(*rows).connected().run(25).answers == Pair(*rows).connected().run(25).answers


LIES: list[messages.ServerMessage] = [
    messages.Busy(0, 4294.0),
    messages.Result(0, 2**32 - 1, (0.0,) * 4, ServerTimings(queue_s=4294.0, tail_s=4294.0)),
    messages.Drain(4294.0),
    messages.Invalid(0, 0, "all of it"),
    messages.Ack(0, 4, Load(2**32 - 1, 4294.0, 4294.0)),
    messages.Welcome("edge", 2**32 - 1, 2**32 - 1),
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: type(lie).__name__)
def test_a_lie_costs_a_frame_and_no_more(lie: messages.ServerMessage) -> None:
    """A server that names an hour is believed for seconds."""
    pair = Pair().connected().run(10)
    pair.device.hear("", pair.now, lie)
    pair.run(90)
    assert all(a.on_time and a.label is not None for _, a in pair.answers)
    after = pair.between(80, 99)
    assert sources(after)["server"] > 0.97 * len(after)


def test_the_result_of_a_frame_that_was_never_sent_teaches_nothing() -> None:
    pair = Pair().connected().run(10)
    link = pair.device.core.link
    before = link.server_s(pair.now)
    for frame_id in (10**6, 0):  # never, and long ago
        link.on_result(frame_id, 1, ServerTimings(tail_s=50.0), pair.now)
    assert link.server_s(pair.now) == before


def test_local_only_never_sends() -> None:
    assert not Pair(policy="local-only").connected().run(5).head.sent
