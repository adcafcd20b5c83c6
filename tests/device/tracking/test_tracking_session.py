"""A session with a tracker over a real link, codec and batcher, in virtual time: lab protocols."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from isthmus.device.scheduler import AlwaysOffload, Decision, GoOn, LocalOnly, Offload, Situation
from isthmus.device.tracking.tracker import Tracker
from isthmus.proto.vocabulary import Answer, AnswerSource, Box, Frame, Guess, Reason, StageResult
from pair import LABEL_LOCAL, LABEL_SERVER, Pair, catalogue

HERE = (0.4, 0.4, 0.5, 0.5)
SLOW = ((0.06, 0.06), (0.06, 0.06))
"""A head of 120 ms, nearly four periods and more than the deadline."""


def seen(_: int) -> tuple[Box, ...]:
    return (Box(LABEL_LOCAL, 0.8, *HERE),)


def sources(answers: list[Answer]) -> Counter[str]:
    return Counter(a.source.value for a in answers)


def local(**options: object) -> Pair:
    return Pair(policy=LocalOnly(catalogue()), fps=30, deadline_s=0.033, seen=seen, tracker=Tracker(), **options)  # type: ignore[arg-type]


def test_a_head_that_is_too_slow_for_every_frame_still_serves_them_all() -> None:
    pair = local(stages_s=SLOW).run(10)
    settled = pair.between(1, 9)
    assert sources(settled) == {"track": len(settled)}
    assert all(a.on_time and a.label == LABEL_LOCAL for a in settled)
    assert all(0.03 < a.age_s < 0.2 for a in settled)  # its first exit speaks after 60 ms
    assert {a.reason for a in settled} == {Reason.OVERLOADED}


def test_without_a_tracker_it_serves_none() -> None:
    pair = Pair(policy=LocalOnly(catalogue()), fps=30, deadline_s=0.033, seen=seen, stages_s=SLOW).run(10)
    assert sources(pair.between(1, 9)) == {"none": len(pair.between(1, 9))}


def test_a_fast_head_answers_every_frame_itself() -> None:
    pair = local().run(5)
    settled = pair.between(1, 4)
    assert sources(settled) == {"exit": len(settled)}
    assert all(a.age_s == 0 for a in settled)


def test_late_answers_of_the_server_are_taken_up() -> None:
    """A round trip of 200 ms and a deadline of 33: nothing is ever back in time, and all of it is of use."""
    far = (3600.0, 8.0, 8.0, 200.0)
    tracker = Tracker()
    known = catalogue()
    pair = Pair(
        far, policy=AlwaysOffload(known), fps=30, deadline_s=0.033, seen=seen, tracker=tracker, stream_credits=16
    )
    pair.connected().run(5)
    settled = pair.between(1, 4)
    assert all(a.on_time for a in settled)
    results = [sent for sent in pair.head.sent if sent[2] == 0]
    assert len(results) > 0.9 * 30 * 4  # the server goes on being asked
    assert pair.server.core is not None


class Hopeful(AlwaysOffload):
    """Sends everything, and promises `promised` of it."""

    promised = 0.01

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        decision = super().after_exit(result, situation)
        return replace(decision, promised=self.promised) if isinstance(decision, Offload) else decision


def hopeful(promised: float, tracker: Tracker | None = None) -> Pair:
    far, policy = (3600.0, 8.0, 8.0, 400.0), Hopeful(catalogue())
    policy.promised = promised
    pair = Pair(far, policy=policy, fps=30, deadline_s=0.15, seen=seen, tracker=tracker or Tracker(), stream_credits=32)
    return pair.connected().run(5)


def test_a_frame_that_is_sent_for_those_after_it_is_answered_at_once() -> None:
    """It waited for its deadline, of which it had no hope, and now and then missed it."""
    settled = hopeful(0.01).between(1, 4)
    away = [a for a in settled if a.promised is not None]
    assert len(away) > 80
    assert {(a.source, a.reason) for a in away} == {(AnswerSource.EXIT, Reason.LINK)}
    assert max(a.latency_s for a in away) < 0.03
    assert all(a.bytes_up > 0 for a in away)  # all of it is sent before it is answered


def test_what_comes_back_of_it_is_taken_up() -> None:
    words: list[int] = []

    class Listening(Tracker):
        def detected(self, frame: Frame, guess: Guess) -> Guess:
            if guess.label == LABEL_SERVER:
                words.append(frame.id)
            return super().detected(frame, guess)

    hopeful(0.01, Listening())
    assert len(words) > 80


def test_a_frame_with_hope_waits() -> None:
    away = [a for a in hopeful(0.1).between(1, 4) if a.promised is not None]
    assert {(a.source, a.reason) for a in away} == {(AnswerSource.EXIT, Reason.DEADLINE)}


def test_every_frame_is_answered_once_and_forgotten_once() -> None:
    for rows in (((2.0, 8.0, 8.0, 20.0), (2.0, 0.0, 0.0, 20.0), (3600.0, 0.5, 8.0, 60.0)),):
        pair = Pair(*rows, fps=30, deadline_s=0.05, seen=seen, tracker=Tracker(), stages_s=((0.02, 0.03), (0.01, 0.02)))
        pair.connected().run(8)
        pair.run(0)
        ids = [frame.id for frame, _ in pair.answers]
        assert sorted(ids) == list(range(len(ids)))
        assert all(answer.on_time for _, answer in pair.answers)
        assert len(pair.device._frames) <= 20  # those on their way only


class EveryEighth(LocalOnly):
    """Looks at a frame only when the newest detection is that old."""

    def width(self, situation: Situation) -> int:
        old_s = situation.detected_s
        return super().width(situation) if old_s is None or old_s > 7.5 / 30 else None  # type: ignore[return-value]

    def after_exit(self, result: StageResult, situation: Situation) -> GoOn:
        return super().after_exit(result, situation)  # type: ignore[return-value]


def test_a_policy_may_let_frames_be_tracked() -> None:
    pair = Pair(policy=EveryEighth(catalogue()), fps=30, deadline_s=0.1, seen=seen, tracker=Tracker()).run(9)
    settled = pair.between(1, 1 + 8 * 8 * 3 / 30)
    assert sources(settled) == {"exit": 24, "track": 168}
    tracked = [a for a in settled if a.source is AnswerSource.TRACK]
    assert {a.reason for a in tracked} == {Reason.TRACKED}
    assert max(a.latency_s for a in tracked) < 0.004  # as soon as things are moved there
    assert max(a.age_s for a in tracked) < 8 / 30
