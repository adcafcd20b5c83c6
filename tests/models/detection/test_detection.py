"""Training a detector in two halves: what it learns from, what it minimises, and that what is exported is what was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isthmus.models.data.clips import BoxedFrames
from isthmus.proto.bits.packing import Packing
from isthmus.proto.errors import DataError
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.detection import Detection
from small_skies import sky

torch = pytest.importorskip("torch")

from isthmus.models.detection import judging, losses, measuring, places, run, views  # noqa: E402
from isthmus.models.detection.network import Architecture, Detector, PlainHead, fused  # noqa: E402
from isthmus.models.detection.recipes import RECIPES  # noqa: E402
from isthmus.models.detection.rounding import coded, straight_through  # noqa: E402
from isthmus.models.detection.trainer import Trainer, normalised  # noqa: E402

SMALL = Architecture(height=64, width=96, classes=2, channels=(8, 8, 16), bottleneck=4, tail=(16, 16), small=8)
RECIPE = replace(RECIPES["skywatch"], arch=SMALL, epochs=4, epoch_pictures=16, batch=8, judged_every=2, tail_from=0.5)


def test_every_place_is_held_out_whole() -> None:
    frames = sky()
    twice = BoxedFrames(
        np.concatenate([frames.images, frames.images[:4]]),
        (*frames.boxes, *frames.boxes[:4]),
        np.concatenate([frames.clip, np.full(4, 6)]),
        np.concatenate([frames.number, frames.number[:4]]),
        (*frames.names, "again"),
        frames.labels,
    )
    place = places.places(twice)
    assert place.tolist() == [0, 1, 2, 3, 4, 5, 0]
    judges = places.held_out(twice, place)
    assert judges[0] == judges[6]
    assert {twice.boxes[i][0, 0] for i in np.flatnonzero(judges[twice.clip])} == {0, 1}


def test_a_class_of_one_place_cannot_be_judged() -> None:
    frames = sky(clips=3)
    with pytest.raises(DataError, match="bright: seen at one place only"):
        places.held_out(frames, places.places(frames))


def test_views_keep_boxes_within_the_picture_and_repeat_with_the_seed() -> None:
    varied = views.Views(sky())
    for seed in range(40):
        image, boxes = varied.picture(np.random.default_rng(seed))
        again, same = varied.picture(np.random.default_rng(seed))
        assert image.shape == (64, 96, 3)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(boxes, same)
        assert (boxes[:, 1:3] >= 0).all()
        assert (boxes[:, 3] <= 96).all()
        assert (boxes[:, 4] <= 64).all()
        assert (boxes[:, 3:] > boxes[:, 1:3]).all()


def test_each_thing_has_a_cell_and_the_smaller_one_goes_first() -> None:
    boxes = np.array([[0, 8, 8, 72, 56], [1, 33, 25, 37, 29]], np.float32)
    label, place = views.targets(boxes, (8, 12))
    assert label[3, 4] == 1
    assert (label == 0).sum() > 1
    np.testing.assert_allclose(place[:, 3, 4], [33 / 8, 25 / 8, 37 / 8, 29 / 8])


def test_the_loss_is_nothing_for_the_right_answer_and_decoding_gives_the_box_back() -> None:
    boxes = np.array([[1, 20, 12, 52, 36]], np.float32)
    label, place = (torch.from_numpy(a)[None] for a in views.targets(boxes, (8, 12)))
    answer = torch.full((1, 6, 8, 12), -20.0)
    y, x = (torch.arange(n, dtype=torch.float32) + 0.5 for n in (8, 12))
    left, top, right, bottom = (boxes[0, 1:] / 8).tolist()
    answer[0, 2], answer[0, 3] = (left + right) / 2 - x[None, :], (top + bottom) / 2 - y[:, None]
    answer[0, 4], answer[0, 5] = np.log(right - left), np.log(bottom - top)
    answer[0, 1][label[0] >= 0] = 20.0
    assert float(losses.detection(answer, label, place)) == pytest.approx(0, abs=1e-3)
    assert float(losses.detection(answer.roll(1, 1), label, place)) > 1
    task = Detection(Boxes("cells"), (64, 96), classes=2)
    guess = task.guess(task.pack([answer[0].permute(1, 2, 0).numpy()]), temperature=1.0, accuracy=0.0)
    assert isinstance(guess.detail, tuple)
    (found,) = guess.detail
    assert (found.label, round(found.left * 96), round(found.bottom * 64)) == (1, 20, 36)


@pytest.mark.parametrize("base", [True, False])
def test_training_rounds_as_the_codec_does(base: bool) -> None:
    features = np.random.default_rng(0).normal(0, 1.5, (4, 5, 12)).astype(np.float32)
    packing = Packing((4, 5, 12), (0.0,) * 12, (0.5,))
    packed = [packing.expand(i, np.frombuffer(p, np.uint8)) for i, p in enumerate(packing.pack(features, 0))]
    decoded = packing.unpack(packed[: 1 if base else 2], 0)
    x = torch.from_numpy(features).permute(2, 0, 1)[None].requires_grad_()
    step, alone = torch.tensor(0.5), torch.tensor(base)
    np.testing.assert_array_equal(coded(x, step, alone)[0].detach().permute(1, 2, 0).numpy(), decoded)
    through = straight_through(x, step, alone)
    np.testing.assert_allclose(through[0].detach().permute(1, 2, 0).numpy(), decoded, atol=1e-6)
    through.sum().backward()
    assert x.grad is not None
    assert set(x.grad.unique().tolist()) <= {0.0, 0.5, 1.0}


def test_a_width_folded_answers_as_in_training_and_costs_what_it_says() -> None:
    network = Detector(SMALL).eval()
    images = normalised(sky().images[:2])
    for width in SMALL.widths:
        with torch.no_grad():
            features, exit_ = network.head(images, width)
            plain = PlainHead(network.head, width)(images.permute(0, 2, 3, 1))
        np.testing.assert_allclose(plain["features"], features.permute(0, 2, 3, 1), atol=1e-4)
        np.testing.assert_allclose(plain["boxes"], exit_.permute(0, 2, 3, 1), atol=1e-4)
    whole = Architecture()
    flops = [2 * Detector(whole).head.macs(whole, width) / 1e6 for width in whole.widths]
    assert flops[0] <= 40
    assert flops[-1] <= 125


def test_a_training_is_cut_off_and_taken_up_and_its_best_network_is_kept(tmp_path: Path) -> None:
    frames, scores = sky(), iter([0.5, 0.2])
    said: list[str] = []
    first = Trainer(replace(RECIPE, epochs=2), frames, lambda _: next(scores), seed=1)
    first.run(tmp_path / "a.pt", said.append)
    best = {name: tensor.clone() for name, tensor in first.kept.network.state_dict().items()}
    second = Trainer(RECIPE, frames, lambda _: next(scores), seed=1)
    second.run(tmp_path / "a.pt", said.append)
    assert "held out 0.500 (best 0.500 at 2)" in said[1]
    assert "resumed after epoch 2 of 4" in said[2]
    assert "held out 0.200 (best 0.500 at 2)" in said[-1]
    assert "wide" in said[-1]
    assert all(torch.equal(best[name], tensor) for name, tensor in second.kept.network.state_dict().items())
    kept = run.load_best(tmp_path / "a.pt", RECIPE)
    assert (kept.seed, kept.epoch, kept.epochs) == (1, 2, 4)
    with pytest.raises(DataError, match="another architecture"):
        run.load_best(tmp_path / "a.pt", RECIPES["skywatch"])
    named = BoxedFrames(frames.images, frames.boxes, frames.clip, frames.number, frames.names, ("a", "b"))
    other = Trainer(RECIPE, named, lambda _: 0.0, seed=1)
    with pytest.raises(DataError, match=r"another run \(classes"):
        other.run(tmp_path / "a.pt", said.append)


def test_operating_points_with_the_real_codec() -> None:
    frames, network = sky(), Detector(SMALL).eval()

    class Halves:
        def head(self, images: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                z, exit_ = network.head(normalised(images), width)
            return z.permute(0, 2, 3, 1).contiguous().numpy(), exit_.permute(0, 2, 3, 1).numpy()

        def tail(self, features: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return fused(*network.tail(torch.from_numpy(features).permute(0, 3, 1, 2))).permute(0, 2, 3, 1).numpy()

    codec = measuring.fitted_codec(Halves(), SMALL.widths, (0.5, 1.0), frames.images)
    answers, layer_bytes = measuring.answered(Halves(), SMALL.widths, codec, frames.images, lambda _: None)
    assert layer_bytes.shape == (24, 3, 2, 2)
    assert [(a.point.exit, a.point.step, a.point.layers) for a in answers[:5]] == [
        (0, None, 0),
        (None, 0, 1),
        (None, 0, 2),
        (None, 1, 1),
        (None, 1, 2),
    ]
    heard = judging.heard(network, frames.images, 0.5, 0.5)
    np.testing.assert_allclose(heard.server, answers[1].maps, atol=0.2)  # the trainer's own rounding, and bfloat16
    assert judging.by_crossing(network, frames, 0.5, 0.5).keys() == {"rounded", "noisy", "as they are"}
    result, edges = measuring.evaluated(answers, layer_bytes, frames, Boxes("cells", score=0.1), codec)
    assert result.outcomes.score is not None
    assert result.outcomes.score.shape == (24, 15)
    assert all(len(p.accuracy_given[0]) == len(edges) + 1 for p in result.points)
