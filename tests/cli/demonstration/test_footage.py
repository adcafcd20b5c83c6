"""What the demo shows of real clips: the frame that an answer is of, and whether it is right."""

from __future__ import annotations

from isthmus.cli.demo_view import half_blocks
from isthmus.cli.demonstration.footage import ShippedClips, on_pictures
from isthmus.device.capture.sources.clips import Clips
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Box, Guess, Reason

LABELS = ("airplane", "bird", "drone", "helicopter")


def answer(frame_id: int, boxes: tuple[Box, ...], *, on_time: bool = True) -> FrameRecord:
    return FrameRecord(
        frame_id=frame_id,
        captured_s=frame_id / 30,
        deadline_s=frame_id / 30 + 0.1,
        label=boxes[0].label if boxes else 0,
        confidence=0.9,
        source=AnswerSource.TRACK,
        reason=Reason.TRACKED,
        answered_s=frame_id / 30,
        latency_s=0.05,
        on_time=on_time,
        picture=f"V_AIRPLANE_041.mp4 #{frame_id + 1}",
        boxes=boxes,
        age_s=0.1,
    )


def test_the_viewer_sees_the_agents_frames() -> None:
    agent, viewer = Clips(0), ShippedClips(0, LABELS)
    seen = [agent.read().pixels for _ in range(4)]
    assert (viewer.picture(2) == seen[2]).all()  # type: ignore[union-attr]
    assert (viewer.picture(1) == seen[1]).all()  # type: ignore[union-attr]


def test_answers_are_judged_by_the_boxes_of_their_frame() -> None:
    footage = ShippedClips(0, LABELS)
    (truth,) = footage.truth(answer(5, ()))
    assert LABELS[truth.label] == "airplane"
    assert footage.judged(answer(5, (truth,))).right is True
    assert footage.judged(answer(5, (truth,), on_time=False)).right is False
    assert footage.judged(answer(5, (Box(1, 0.9, *_place(truth)),))).right is False
    assert footage.judged(answer(5, ())).right is False


def _place(box: Box) -> tuple[float, float, float, float]:
    return box.top, box.left, box.bottom, box.right


def test_average_precision_counts_what_was_on_time() -> None:
    footage = ShippedClips(0, LABELS)
    truths = [footage.truth(answer(i, ())) for i in range(6)]
    answers = [answer(i, truth, on_time=i % 2 == 0) for i, truth in enumerate(truths)]
    alone = {i: Guess(0, 0.9, truth) for i, truth in enumerate(truths)}
    ours, local = footage.ap50(answers, alone)
    assert 0.4 < ours < 0.6
    assert local > 0.99


def test_answers_are_drawn_onto_their_frames_for_the_report() -> None:
    footage = ShippedClips(0, LABELS)
    answers = [answer(i, footage.truth(answer(i, ()))) for i in range(12)]
    drawn = on_pictures(footage, answers, LABELS)
    assert len(drawn) == 6
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in drawn)


def test_boxes_are_drawn_in_the_terminals_picture() -> None:
    pixels = Clips(0).read().pixels
    assert pixels is not None
    plain, boxed = half_blocks(pixels, 20), half_blocks(pixels, 20, (Box(2, 0.9, 0.4, 0.4, 0.6, 0.6),))
    unsure = half_blocks(pixels, 20, (Box(2, 0.1, 0.4, 0.4, 0.6, 0.6),))
    assert plain.plain == boxed.plain
    assert plain.spans == unsure.spans
    assert plain.spans != boxed.spans
