"""Head and tail that replay an outcome table: the session must hear exactly what the table says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from msgspec import structs

from isthmus.edge_server.batcher import Item, RunBatch
from isthmus.edge_server.streams import Ready
from isthmus.emulation.replay import GRADES, SIZE_ERROR, Content, Feed, Head, Replay, Tail
from isthmus.models import bundle as bundles
from isthmus.proto.errors import BundleError
from isthmus.proto.tasks.classification import Classification
from isthmus.proto.tasks.detection import Detection

STAGES_S = ((0.01, 0.02, 0.03, 0.04),) * 2


@cache
def content(name: str = "cifar10") -> Content:
    return Content.of(bundles.load(name))


@cache
def replay() -> Replay:
    return Replay(content(), seed=1)


def head(seed: int = 1) -> Head:
    feed = Feed.seeded(seed, 0, len(replay().truth), fps=10, duration_s=100, deadline_s=0.1)
    return Head(replay(), feed, STAGES_S, seed=seed, device=0)


def test_what_comes_back_is_the_tables_answer_at_its_confidence() -> None:
    """Through the payload, the server's decoder, the logits and the session's own softmax."""
    device, tail = head(), Tail(replay(), lambda b: 0.001 * b, seed=1, server=0)
    outcomes, points = content().outcomes, content().points
    for frame_id in range(60):
        width, step, layers = frame_id % 4, frame_id % 3, 1 + frame_id % 2
        known = content().catalogue.offloads[width][step][layers - 1]
        device.run(frame_id, 1, known.point.width)
        payloads = [device.encode(frame_id, step, layer) for layer in range(layers)]
        sample = device.feed.sample(frame_id)
        assert [len(p) for p in payloads] == outcomes.layer_bytes[sample, width, step, :layers].tolist()
        batch = RunBatch((Item(1, frame_id, 1.0, 0.0, Ready(0.0, replay().crossed(payloads).features, layers)),))
        (logits,), _ = tail.run(batch)
        told = Classification().guess(logits, temperature=known.temperature, accuracy=0.0)
        column = points.index(known.point)
        assert told.label == outcomes.label[sample, column]
        assert told.confidence == pytest.approx(min(float(outcomes.confidence[sample, column]), 1 - 1e-4), abs=2e-3)


@pytest.mark.parametrize("known", [60, 1001])
def test_a_network_may_know_more_classes_than_the_samples_have(known: int) -> None:
    """Each answer was refused as invalid, so that no rival of a bundle with ImageNet's classes had one from the server."""
    signs = bundles.load("signs")
    manifest = structs.replace(signs.manifest, labels=tuple(map(str, range(known))))
    told = Content.of(replace(signs, manifest=manifest))
    point = told.catalogue.offloads[3][0][1].point
    answers = Replay(told, seed=1)
    guess = told.catalogue.task.guess(answers.logits(7, 3, 0, 2), temperature=1.0, accuracy=0.0)
    assert guess.label == told.outcomes.label[7, told.points.index(point)]


def test_many_classes_are_packed_as_a_tail_packs_them() -> None:
    """100 bytes, not four for each of a thousand classes: what comes down takes the link's time too."""
    table = content().outcomes
    far = replace(content(), outcomes=replace(table, label=table.label.astype(np.uint16) + 900))
    packed = Replay(far, seed=1).logits(5, 3, 0, 2)
    assert isinstance(packed, bytes)
    known = far.catalogue.offloads[3][0][1]
    guess = Classification().guess(packed, temperature=known.temperature, accuracy=0.0)
    column = far.points.index(known.point)
    assert guess.label == int(table.label[5, column]) + 900
    assert guess.confidence == pytest.approx(min(float(table.confidence[5, column]), 1 - 1e-4), abs=2e-3)


def test_the_exits_say_what_the_table_says() -> None:
    device, outcomes = head(), content().outcomes
    result = device.run(5, 0, 0.5)
    column = content().points.index(content().catalogue.exits[1][0].point)
    assert result.guess is not None
    assert result.guess.label == outcomes.label[device.feed.sample(5), column]
    assert result.layer_bytes is None
    assert device.run(5, 1, 0.5).layer_bytes is not None


def test_predicted_sizes_err_as_much_as_the_codecs() -> None:
    both = [replay().sizes(sample, width) for sample in range(2000) for width in range(4)]
    real, believed = (np.array(sizes, float) for sizes in zip(*both, strict=True))
    error = np.abs(believed / real - 1)[real > 100]
    assert np.median(error) == pytest.approx(SIZE_ERROR, rel=0.1)


def test_what_a_frame_meets_is_the_same_whatever_was_done_before_it() -> None:
    one, other = head(), head()
    for frame_id in range(9):
        one.run(frame_id, 0, 1.0)
    assert one.run(9, 1, 0.25) == other.run(9, 1, 0.25)
    assert head(seed=2).run(9, 1, 0.25) != other.run(9, 1, 0.25)


def test_a_slower_device_takes_longer() -> None:
    cool, hot = head(), head()
    hot.slowdown = 1.8
    assert hot.stage_s(3, 1, 2) == pytest.approx(1.8 * cool.stage_s(3, 1, 2))


def test_a_feed_shows_every_sample_before_it_shows_one_twice() -> None:
    feed = Feed.seeded(1, 0, 50, fps=10, duration_s=30, deadline_s=0.1)
    assert sorted(feed.sample(i) for i in range(50)) == list(range(50))
    assert feed.frames == 300
    assert 0 <= feed.first_s < 0.1
    assert feed.captured_s(10) - feed.captured_s(0) == pytest.approx(1.0)


def test_masks_and_boxes_are_right_as_often_as_their_score_says(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles.load("signs")
    table = bundle.outcomes()
    score = np.random.default_rng(1).random(table.label.shape).astype(np.float16)
    monkeypatch.setattr(type(bundle), "outcomes", lambda _: replace(table, score=score))
    monkeypatch.setattr(type(bundle.manifest), "answers", Detection())
    graded = Content.of(bundle)
    assert table.calibrating is not None
    judging = score[~table.calibrating]
    right = (graded.outcomes.label == graded.outcomes.truth[:, None]).reshape(len(judging), GRADES, -1).mean(axis=1)
    np.testing.assert_allclose(right, judging, atol=0.5 / GRADES + 1e-3)
    assert isinstance(graded.catalogue.task, Classification)


def test_only_what_no_table_was_counted_on_is_replayed() -> None:
    bundle = bundles.load("signs")
    table, whole = bundle.outcomes(), Content.whole(bundle)
    assert table.calibrating is not None
    assert len(whole.outcomes.truth) == len(table.truth)
    judging = ~table.calibrating
    np.testing.assert_array_equal(Content.of(bundle).outcomes.label, table.label[judging])
    np.testing.assert_array_equal(Content.of(bundle).outcomes.layer_bytes, table.layer_bytes[judging])
    untold = replace(whole, outcomes=replace(whole.outcomes, calibrating=None))
    assert untold.judging() is untold


def test_an_outcome_table_of_another_bundle_is_refused() -> None:
    with pytest.raises(BundleError, match="give the outcome table of this bundle"):
        replace(content(), points=content().points[1:])
    other = replace(content().outcomes, layer_bytes=content().outcomes.layer_bytes[:, :3])
    with pytest.raises(BundleError, match="outcomes: 5000 samples"):
        replace(content(), outcomes=other)
