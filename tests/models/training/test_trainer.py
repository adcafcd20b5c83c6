"""The training rooms on a network small enough for seconds: what is exported is what was trained, and a run goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")

from torch import Tensor  # noqa: E402

from isthmus.models.bundling.evaluate import evaluate, fitted_codec  # noqa: E402
from isthmus.models.data import labelled  # noqa: E402
from isthmus.models.data.labelled import Validation  # noqa: E402
from isthmus.models.training import bottleneck, late_exits, muon, run  # noqa: E402
from isthmus.models.training.backbones import Architecture, Conv, SplitNetwork  # noqa: E402
from isthmus.models.training.recipes import RECIPES, Recipe  # noqa: E402
from isthmus.models.training.run import load_averaged  # noqa: E402
from isthmus.models.training.trainer import Trainer, accuracy  # noqa: E402
from isthmus.proto.errors import ConfigError, DataError  # noqa: E402

ARCH = Architecture(
    input_size=16,
    classes=3,
    widths=(0.5, 1.0),
    stages=((Conv(16, stride=2),), (Conv(16, stride=2), Conv(16, residual=True))),
    exit_channels=(16, 16),
    bottleneck_channels=4,
    tail=(Conv(16), Conv(16, residual=True)),
)
RECIPE = Recipe(arch=ARCH, epochs=24, batch=32, steps=(0.5, 1.0), late_exit_epochs=2)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def pictures(n: int = 384, seed: int = 0) -> labelled.Pictures:
    """Three classes told apart by which colour is strong."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 120, (n, 16, 16, 3))
    images[np.arange(n), :, :, labels] += 70
    return labelled.Pictures(images.astype(np.uint8), labels.astype(np.int64))


def training_set() -> labelled.TrainingSet:
    return labelled.TrainingSet(pictures(), MEAN, STD, shift_pixels=1, flip=True)


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SplitNetwork, Path]:
    torch.set_num_threads(1)
    checkpoint = tmp_path_factory.mktemp("trained") / "tiny.pt"
    return Trainer(RECIPE, training_set(), seed=1).run(checkpoint, silent), checkpoint


def normalised(p: labelled.Pictures) -> Tensor:
    return labelled.normalised(p.images, MEAN, STD)


def test_it_learns_at_every_width_quantised_and_at_the_exits(trained: tuple[SplitNetwork, Path]) -> None:
    test = pictures(300, seed=1)
    for width in ARCH.widths:
        for step in (0.0, 0.5):
            right, at_exits = accuracy(trained[0], normalised(test), torch.from_numpy(test.labels), width, step)
            assert right > 0.9, (width, step)
            assert at_exits[-1] > 0.8, (width, step)


def test_a_run_is_taken_up_where_it_was_left(tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.pt"
    Trainer(replace(RECIPE, epochs=1), training_set(), seed=1).run(checkpoint, silent)
    told: list[str] = []
    Trainer(replace(RECIPE, epochs=2), training_set(), seed=1).run(checkpoint, told.append)
    assert told[0] == "resumed after epoch 1 of 2"
    assert load_averaged(checkpoint, RECIPE)[1:] == (1, 2, "")
    assert not list(tmp_path.glob("*.partial"))


def test_a_checkpoint_of_another_architecture_is_refused(trained: tuple[SplitNetwork, Path]) -> None:
    other = replace(RECIPE, arch=replace(ARCH, bottleneck_channels=6))
    with pytest.raises(DataError, match=r"tiny\.pt: a checkpoint of another architecture"):
        load_averaged(trained[1], other)
    with pytest.raises(DataError, match=r"tiny\.pt: a checkpoint of another architecture"):
        Trainer(other, training_set(), seed=1).run(trained[1], silent)
    with pytest.raises(DataError, match="no such checkpoint"):
        load_averaged(trained[1].with_name("none.pt"), RECIPE)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(content)
    for take_up in (
        lambda: Trainer(RECIPE, training_set(), seed=1).run(path, silent),
        lambda: load_averaged(path, RECIPE),
    ):
        with pytest.raises(DataError, match=r"tiny\.pt: not a checkpoint"):
            take_up()
    assert path.read_bytes() == content


def test_labels_out_of_range_and_too_few_pictures_are_refused() -> None:
    mislabelled = pictures()
    mislabelled.labels[5] = 7
    with pytest.raises(DataError, match="training pictures: label 7 of picture 5 is none of the classes 0 to 2"):
        Trainer(RECIPE, replace(training_set(), pictures=mislabelled), seed=1)
    with pytest.raises(DataError, match="training pictures: 20; a batch of this recipe takes 32"):
        Trainer(RECIPE, replace(training_set(), pictures=pictures(20)), seed=1)


def test_the_exported_graph_is_the_trained_one(trained: tuple[SplitNetwork, Path]) -> None:
    """Slicing and folding the batch norms changes nothing, at any width."""
    network, x = trained[0].eval(), normalised(pictures(4, seed=2))
    for width in ARCH.widths:
        features, at_exits = network.head(x, width)
        hidden = x.permute(0, 2, 3, 1)
        for stage in range(len(ARCH.stages)):
            out = network.head.plain_stage(stage, width)(hidden)
            torch.testing.assert_close(out["logits"], at_exits[stage], atol=1e-4, rtol=1e-4)
            hidden = out.get("hidden", hidden)
        torch.testing.assert_close(out["features"].permute(0, 3, 1, 2), features, atol=1e-4, rtol=1e-4)


def test_exits_can_be_made_anew_and_cost_the_features_nothing(trained: tuple[SplitNetwork, Path]) -> None:
    test = pictures(300, seed=3)
    network, _ = load_averaged(trained[1], RECIPE)[0], None
    before, _ = network.head(normalised(test), 1.0)
    late_exits.retrain(network, RECIPE, training_set(), seed=1, report=silent)
    after, at_exits = network.eval().head(normalised(test), 1.0)
    torch.testing.assert_close(before, after)
    assert float((at_exits[-1].argmax(1).numpy() == test.labels).mean()) > 0.8


def test_every_operating_point_is_evaluated(trained: tuple[SplitNetwork, Path]) -> None:
    test = pictures(90, seed=4)
    validation = Validation(test, np.arange(90) % 2 == 0, MEAN, STD)
    halves = run.Trained(trained[0], MEAN, STD)
    codec = fitted_codec(halves, ARCH.widths, RECIPE.steps, pictures(60, seed=5).images)
    result = evaluate(halves, ARCH.widths, codec, validation, silent)
    assert len(result.points) == len(ARCH.widths) * (len(ARCH.stages) + len(RECIPE.steps) * 2)
    assert result.outcomes.label.shape == (90, len(result.points))
    assert result.outcomes.layer_bytes.shape == (90, len(ARCH.widths), len(RECIPE.steps), 2)
    for i, point in enumerate(result.points):
        right = (result.outcomes.label[:, i] == result.outcomes.truth).mean()
        assert point.accuracy == pytest.approx(right, abs=1e-4)
        assert all(0 <= share <= 1 for row in point.accuracy_given for share in row)


def test_rounding_in_training_is_the_codec_s() -> None:
    x = torch.tensor([-9.0, -0.74, 0.2, 0.3, 30.0])
    assert bottleneck.quantised(x, 0.5).tolist() == [-3.5, -0.5, 0.0, 0.5, 3.5]
    step = torch.full((1, 1, 1, 1), 0.5)
    y = x.reshape(1, 5, 1, 1).requires_grad_()
    out = bottleneck.straight_through(y, step)
    assert out.flatten().tolist() == [-3.5, -0.5, 0.0, 0.5, 3.5]
    out.sum().backward()
    assert y.grad is not None
    assert y.grad.flatten().tolist() == [0, 1, 1, 1, 0]


def test_an_orthogonalised_matrix_has_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((16, 72), (72, 16), (32, 32)):
        singular = torch.linalg.svdvals(muon.orthogonalised(torch.randn(*shape, generator=generator), iterations=6))
        assert float(singular.max()) < 1.3
        assert float(singular.median()) > 0.6


def test_muon_keeps_the_norm_and_turns_by_its_rate() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    optimiser = muon.Muon([weight], lr=0.1)
    before = weight.detach().clone()
    weight.grad = torch.randn(8, 4, 3, 3)
    optimiser.step()
    assert float(weight.detach().norm()) == pytest.approx(math.sqrt(8), rel=1e-5)
    assert float((weight.detach() - before).norm() / before.norm()) == pytest.approx(0.1, rel=0.1)


def test_the_average_of_a_short_run_is_not_what_it_began_with(tmp_path: Path) -> None:
    """It kept 0.995 of itself at every step: after thirty it was still mostly random weights, and that was exported."""
    torch.set_num_threads(1)
    recipe = replace(RECIPE, epochs=3, batch=32)
    short = Trainer(recipe, training_set(), seed=1).run(tmp_path / "short.pt", silent)
    test = pictures(300, seed=1)
    assert accuracy(short, normalised(test), torch.from_numpy(test.labels), 1.0, 0.5)[0] > 0.8


def test_a_few_pictures_are_learnt_from_in_small_batches_for_long(tmp_path: Path) -> None:
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "few" / name).mkdir(parents=True)
        for i in range(300):
            cv2.imwrite(str(tmp_path / "few" / name / f"{i}.png"), np.full((36, 36, 3), level, np.uint8))
    recipe = run.open_run("signs", tmp_path / "few").recipe
    assert (recipe.batch, recipe.epochs, recipe.late_exit_epochs) == (32, 67, 9)
    assert recipe.epochs * (480 // recipe.batch) >= 1000
    assert run._sized(RECIPES["cifar10"], 50_000) == RECIPES["cifar10"]


def test_a_recipe_takes_other_people_s_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("bus", "bicycle", "nothing"):
        (tmp_path / "street" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 255, (40, 50, 3), np.uint8)
            assert cv2.imwrite(str(tmp_path / "street" / name / f"{i}.png"), pixels)
    opened = run.open_run("cifar10", tmp_path / "street")
    assert (opened.name, opened.recipe.arch.classes) == ("street", 3)
    assert opened.corpus.labels == ("bicycle", "bus", "nothing")
    assert len(opened.corpus.training().pictures) == 15
    assert len(opened.corpus.validation().pictures) == 3
    with pytest.raises(ConfigError, match="no such recipe; there are cifar10, signs"):
        run.open_run("cifar100")
