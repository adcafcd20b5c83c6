"""A training that begins with a bundle: the network it begins with is the one that the bundle's files run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")
pytest.importorskip("onnx", reason="onnx is not installed; the training rooms need it")

from torch import Tensor  # noqa: E402

from isthmus.models import bundle, flatbuffer, scenes  # noqa: E402
from isthmus.models.bundling.shipped import Shipped  # noqa: E402
from isthmus.models.data import labelled  # noqa: E402
from isthmus.models.training.backbones import SplitNetwork  # noqa: E402
from isthmus.models.training.recipes import RECIPES  # noqa: E402
from isthmus.models.training.run import Trained, load_averaged  # noqa: E402
from isthmus.models.training.trainer import Trainer  # noqa: E402
from isthmus.models.training.warm_start import warm_start  # noqa: E402
from isthmus.proto.errors import BundleError, DataError  # noqa: E402

SIGNS = RECIPES["signs"]


@pytest.fixture(scope="module")
def whole() -> bundle.Bundle:
    return bundle.load("signs")


@pytest.fixture(scope="module")
def pictures() -> labelled.Pictures:
    return labelled.Pictures(*scenes.samples(64, seed=5))


@pytest.fixture(scope="module")
def network(whole: bundle.Bundle, pictures: labelled.Pictures) -> SplitNetwork:
    torch.set_num_threads(1)
    fresh = SplitNetwork(SIGNS.arch)
    warm_start(fresh, whole, normalised(whole, pictures))
    fresh.eval()
    return fresh


def normalised(whole: bundle.Bundle, pictures: labelled.Pictures) -> Tensor:
    return labelled.normalised(pictures.images, whole.manifest.input.mean, whole.manifest.input.std)


def test_it_answers_as_the_bundle_does_at_every_width(
    whole: bundle.Bundle, network: SplitNetwork, pictures: labelled.Pictures
) -> None:
    taken = whole.manifest.input
    ours, theirs = Trained(network, taken.mean, taken.std), Shipped(whole)
    for width in whole.manifest.widths:
        features, exits = ours.head(pictures.images[:8], width)
        expected, at_exits = theirs.head(pictures.images[:8], width)
        np.testing.assert_allclose(features, expected, atol=2e-3)
        for found, logits in zip(exits, at_exits, strict=True):
            np.testing.assert_allclose(found, logits, atol=2e-2)
        np.testing.assert_allclose(ours.tail(features), theirs.tail(expected), atol=5e-2)


def test_in_training_too_it_is_nearly_the_same(
    whole: bundle.Bundle, network: SplitNetwork, pictures: labelled.Pictures
) -> None:
    """Its norms' statistics are those of the pictures, not of nothing."""
    x = normalised(whole, pictures)
    with torch.no_grad():
        in_use, _ = network.head(x, 1.0)
        told = network.tail(in_use)
        learning, _ = network.train().head(x, 1.0)
        told_learning = network.tail(in_use)
    network.eval()
    assert float((in_use - learning).std()) < 0.2 * float(in_use.std())
    assert float((told - told_learning).std()) < 0.2 * float(told.std())


def test_other_classes_begin_anew(whole: bundle.Bundle, pictures: labelled.Pictures) -> None:
    fresh = SplitNetwork(replace(SIGNS.arch, classes=7))
    before = fresh.tail.linear.weight.detach().clone()
    warm_start(fresh, whole, normalised(whole, pictures)[:16])
    assert torch.equal(fresh.tail.linear.weight, before)
    assert torch.equal(fresh.head.first.sliced(1.0).flatten(1).std(1) > 0, torch.ones(16, dtype=torch.bool))


@pytest.mark.parametrize("widths", [(1.0,), (0.25,), (0.5, 1.0)])
def test_a_network_of_some_widths_begins_with_those(
    widths: tuple[float, ...], whole: bundle.Bundle, pictures: labelled.Pictures
) -> None:
    taken, few = whole.manifest.input, SplitNetwork(replace(SIGNS.arch, widths=widths))
    warm_start(few, whole, normalised(whole, pictures))
    ours, theirs = Trained(few.eval(), taken.mean, taken.std), Shipped(whole)
    for width in widths:
        features, exits = ours.head(pictures.images[:8], width)
        expected, at_exits = theirs.head(pictures.images[:8], width)
        np.testing.assert_allclose(features, expected, atol=2e-3)
        np.testing.assert_allclose(exits[-1], at_exits[-1], atol=2e-2)


@pytest.mark.parametrize(
    "arch",
    [
        RECIPES["cifar10"].arch,
        replace(SIGNS.arch, widths=(0.5, 0.6)),
        replace(SIGNS.arch, bottleneck_channels=8),
        replace(SIGNS.arch, tail=SIGNS.arch.tail[:2]),
    ],
)
def test_another_architecture_is_refused(arch: object, whole: bundle.Bundle, pictures: labelled.Pictures) -> None:
    with pytest.raises(BundleError, match="signs: of another architecture than the recipe"):
        warm_start(SplitNetwork(arch), whole, normalised(whole, pictures)[:4])  # type: ignore[arg-type]


def test_a_run_says_what_it_began_with_and_goes_on_from_nothing_else(
    whole: bundle.Bundle, pictures: labelled.Pictures, tmp_path: Path
) -> None:
    path = tmp_path / "tuned.pt"
    taken = whole.manifest.input
    training = labelled.TrainingSet(pictures, taken.mean, taken.std, shift_pixels=0, flip=False)
    recipe = replace(SIGNS, epochs=1, batch=32)
    Trainer(recipe, training, seed=1, begin=whole).run(path, lambda _: None)
    averaged = load_averaged(path, recipe)
    assert averaged.begun_with == whole.sha256.hex()
    assert averaged.made_by("signs") == (
        f"isthmus models train signs --seed 1 (1 epochs, begun with bundle {whole.sha256.hex()[:12]})"
    )
    with pytest.raises(DataError, match=r"tuned\.pt: a checkpoint of another run \(begun_with differ\); name another"):
        Trainer(recipe, training, seed=1).run(path, lambda _: None)


def test_a_quantised_head_is_refused(
    whole: bundle.Bundle, pictures: labelled.Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flatbuffer.weights(whole.head_path)
    int8 = {key: [(w.astype(np.int8), b) for w, b in layers] for key, layers in found.items()}
    monkeypatch.setattr(flatbuffer, "weights", lambda _: int8)
    with pytest.raises(BundleError, match="weights of int8; a quantised head has lost too much"):
        warm_start(SplitNetwork(SIGNS.arch), whole, normalised(whole, pictures)[:4])
