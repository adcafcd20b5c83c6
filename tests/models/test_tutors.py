"""A tutor: somebody else's classifier, tuned to a recipe's pictures, and what a training hears of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")

from graphs import around, classifier  # noqa: E402
from isthmus.cli.models import train  # noqa: E402
from isthmus.models import data  # noqa: E402
from isthmus.models.backbones import Architecture, Conv  # noqa: E402
from isthmus.models.recipes import Recipe  # noqa: E402
from isthmus.models.train import Opinions, Trainer  # noqa: E402
from isthmus.models.tutors import Tuning, Tutor, Tutoring, logits_of  # noqa: E402
from isthmus.models.workshop import load_averaged  # noqa: E402
from isthmus.proto.errors import ConfigError, DataError, ModelError  # noqa: E402

ARCH = Architecture(
    input_size=16,
    classes=3,
    widths=(0.5, 1.0),
    stages=((Conv(16, stride=2),), (Conv(16, stride=2),)),
    exit_channels=(16, 16),
    bottleneck_channels=4,
    tail=(Conv(16), Conv(16, residual=True)),
)
RECIPE = Recipe(arch=ARCH, epochs=10, batch=32, steps=(0.5, 1.0), distill_from=0.0)


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> Tutoring:
    torch.set_num_threads(1)
    model = classifier(tmp_path_factory.mktemp("tutor") / "tutor.tflite", size=32, classes=5)
    return Tutoring(model, "0..1", size=32, epochs=20, batch=32, rate=2e-2)


def training_set(mislabelled: bool = False) -> data.TrainingSet:
    """Three classes told apart by which colour is strong; or every picture said to be of the first."""
    rng = np.random.default_rng(0)
    labels = np.arange(192) % 3
    images = rng.integers(0, 120, (192, 16, 16, 3))
    images[np.arange(192), :, :, labels] += 90
    told = np.zeros_like(labels) if mislabelled else labels
    pictures = data.Pictures(images.astype(np.uint8), told.astype(np.int64))
    return data.TrainingSet(pictures, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), shift_pixels=1, flip=True)


def silent(_: str) -> None:
    pass


def test_it_is_tuned_to_the_pictures_and_asked_about_each_and_its_mirror_image(how: Tutoring, tmp_path: Path) -> None:
    told: list[str] = []
    training = training_set()
    tuning = Tuning(how, training, 3, seed=1)
    opinions = tuning.opinions(tmp_path / "tutor.pt", told.append)
    assert opinions.logits.shape == (192, 2, 3)
    assert (opinions.logits.argmax(2) == training.pictures.labels[:, None]).mean() > 0.9
    assert opinions.tutor == f"tutor.tflite {tuning.fingerprint[:12]}"
    assert told[-1].startswith("tutor: right about ")
    mirrored = logits_of(tuning.average, training.pictures.images[:5, :, ::-1])
    np.testing.assert_allclose(opinions.logits[:5, 1], mirrored, atol=0.1)  # bfloat16 knows how many are asked at once


def test_a_tuning_is_taken_up_where_it_was_left_and_no_other_is(how: Tutoring, tmp_path: Path) -> None:
    path, training = tmp_path / "tutor.pt", training_set()
    short = replace(how, epochs=1)
    Tuning(short, training, 3, seed=1).run(path, silent)
    told: list[str] = []
    Tuning(short, training, 3, seed=1).run(path, told.append)
    assert told == ["tutor: resumed after epoch 1 of 1"]
    for other, seed in ((short, 2), (replace(short, rate=1e-3), 1)):
        with pytest.raises(DataError, match=r"tutor\.pt: a tutor that was tuned otherwise"):
            Tuning(other, training, 3, seed=seed).run(path, silent)


def test_what_cannot_be_a_tutor_is_refused_by_name(how: Tutoring, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tutor\.tflite: takes float32; say what its pixels are"):
        Tutor(replace(how, pixels=None), 3)
    with pytest.raises(ModelError, match=r"other\.tflite: answers .*; only classes can be learnt from"):
        Tutor(replace(how, model=around(tmp_path / "other.tflite", lambda b, x: x)), 3)


def test_a_training_hears_its_opinions(tmp_path: Path) -> None:
    """Every label says the first class: what is learnt of the others, the tutor has told."""
    labels = training_set().pictures.labels
    logits = np.repeat(8.0 * np.eye(3, dtype=np.float32)[labels][:, None], 2, 1)
    path, training = tmp_path / "tutored.pt", training_set(mislabelled=True)
    recipe = replace(RECIPE, distill_weight=4.0)
    trainer = Trainer(recipe, training, seed=1)
    trainer.hear(Opinions("a.tflite 0123", logits))
    trainer.run(path, silent)
    averaged = load_averaged(path, recipe)
    x = data.normalised(training.pictures.images, training.mean, training.std)
    assert (averaged.network.answer(x, 1.0).argmax(1).numpy() == labels).mean() > 0.8
    assert averaged.made_by("tiny") == "isthmus models train tiny --seed 1 (10 epochs, tutor a.tflite 0123)"
    with pytest.raises(DataError, match=r"tutored\.pt: a checkpoint of a training with another beginning or tutor"):
        Trainer(recipe, training, seed=1).run(path, silent)


def test_what_a_tutor_is_shown_takes_a_tutor() -> None:
    with pytest.raises(ConfigError, match="--tutor-size, --pixels: what a tutor is shown, and there is none"):
        train("cifar10", checkpoint=None, pictures=None, variant=None, epochs=1, begin=None, tutor=None, tutor_size=64)
