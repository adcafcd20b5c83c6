"""Channel pruning on a network small enough for seconds: budgets are kept, what is left is what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")
pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting needs it")

from torch import Tensor  # noqa: E402

from isthmus.device.executor import Executor  # noqa: E402
from isthmus.models.compression import prune  # noqa: E402
from isthmus.models.data import labelled  # noqa: E402
from isthmus.models.data.corpora import Corpus, halves  # noqa: E402
from isthmus.models.data.labelled import Validation  # noqa: E402
from isthmus.models.training.backbones import Architecture, Conv, SplitNetwork  # noqa: E402
from isthmus.models.training.recipes import Recipe  # noqa: E402
from isthmus.models.training.run import TrainingRun, load_averaged  # noqa: E402
from isthmus.models.training.trainer import Trainer  # noqa: E402
from isthmus.proto.errors import ConfigError  # noqa: E402

ARCH = Architecture(
    input_size=16,
    classes=3,
    widths=(0.5, 1.0),
    stages=((Conv(24, stride=2), Conv(24, residual=True)), (Conv(32, stride=2), Conv(32, residual=True))),
    exit_channels=(16, 16),
    bottleneck_channels=4,
    tail=(Conv(16), Conv(16, residual=True)),
)
RECIPE = Recipe(arch=ARCH, epochs=12, batch=32, steps=(0.5, 1.0))


MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def pictures(n: int, seed: int) -> labelled.Pictures:
    """Three classes told apart by which third of the picture is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    images = rng.integers(40, 140, (n, 16, 16, 3))
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 5] += 70
    return labelled.Pictures(images.astype(np.uint8), labels)


def training_set() -> labelled.TrainingSet:
    return labelled.TrainingSet(pictures(384, seed=0), MEAN, STD, shift_pixels=1, flip=True)


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("trained") / "tiny.pt"
    Trainer(RECIPE, training_set(), seed=1).run(path, silent)
    return path


@pytest.fixture
def network(checkpoint: Path) -> SplitNetwork:
    return load_averaged(checkpoint, RECIPE).network


def calibration() -> tuple[Tensor, Tensor]:
    seen = pictures(150, seed=6)
    return labelled.normalised(seen.images, MEAN, STD), torch.from_numpy(seen.labels)


def test_channels_that_are_added_up_go_together(network: SplitNetwork) -> None:
    spaces = prune.spaces_of(network.head)
    assert [(s.name, s.channels, len(s.convs)) for s in spaces] == [
        ("stage 1, layer 1", 24, 2),
        ("stage 1, exit", 16, 1),
        ("stage 2, layer 1", 32, 2),
        ("stage 2, exit", 16, 1),
    ]


def test_what_is_rebuilt_answers_as_what_was_masked(network: SplitNetwork) -> None:
    x, labels = calibration()
    network.requires_grad_(False)
    spaces = prune.spaces_of(network.head)
    for space in spaces:
        space.kept[torch.randperm(space.channels, generator=torch.Generator().manual_seed(3))[: prune.GROUP]] = 0
    small = prune._rebuilt(network, spaces)
    assert [conv.channels for stage in small.arch.stages for conv in stage] == [16, 16, 24, 24]
    assert float(prune._loss(small, x, labels).detach()) == pytest.approx(
        prune._measured(network, spaces, x, labels), rel=1e-4
    )


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_the_budget_is_kept_and_not_by_much(network: SplitNetwork, share: float) -> None:
    said: list[str] = []
    whole = sum(network.head.macs(1.0))
    small = prune.prune(network, share, *calibration(), report=said.append)
    left = sum(small.head.macs(1.0)) / whole
    assert share - 0.35 < left <= share
    assert f"({left:.0%})" in said[-1]


def test_a_dead_channel_is_the_first_to_go(network: SplitNetwork) -> None:
    """Eight channels of the second stage are cut off from whatever follows; nothing else costs as little."""
    dead = torch.arange(3, 27, 3)
    with torch.no_grad():
        for name in ("stages.1.convs.1.weight", "stages.1.exit.conv.weight", "project.weight"):
            network.head.get_parameter(name)[:, dead] = 0
    network.requires_grad_(False)
    x, labels = calibration()
    spaces = prune.spaces_of(network.head)
    importance = prune._importance(network, spaces, x, labels)["stage 2, layer 1"]
    assert sorted(importance.argsort()[: prune.GROUP].tolist()) == dead.tolist()


@pytest.mark.parametrize(
    ("share", "said"), [(0.01, "cannot be met"), (1.5, "between 0 and 1"), (0.0, "between 0 and 1")]
)
def test_a_budget_that_cannot_be_met_is_refused(network: SplitNetwork, share: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prune.prune(network, share, *calibration(), report=silent)


@pytest.mark.filterwarnings("ignore")  # the converters' own
def test_a_pruned_bundle_runs_on_the_device(checkpoint: Path, tmp_path: Path) -> None:
    def validation() -> Validation:
        return Validation(pictures(90, seed=4), halves(90), MEAN, STD)

    opened = TrainingRun("tiny", RECIPE, Corpus(("a", "b", "c"), training_set, validation), "tiny")
    said: list[str] = []
    asked = prune.Pruning(share=0.6, epochs=1, seed=1)
    averaged = load_averaged(checkpoint, RECIPE)
    told_of = averaged.made_by("tiny")
    made = prune.to_bundle(opened, averaged.network, told_of, tmp_path / "tiny-pruned", asked, report=said.append)
    whole = 2 * sum(SplitNetwork(ARCH).head.macs(1.0))
    assert made.manifest.widths == (1.0,)
    assert sum(row[0].flops for row in made.manifest.stages) <= 0.6 * whole
    assert (
        f"isthmus models train tiny --seed 1 ({RECIPE.epochs} epochs); isthmus models prune tiny --flops 0.6"
        in made.manifest.made_by
    )
    assert [line.partition(":")[0] for line in said if line.startswith(("before", "pruned", "tuned"))] == [
        "before",
        "pruned",
        "tuned",
    ]
    assert max(p.accuracy for p in made.manifest.points) > 0.9
    executor, seen = Executor(made), validation().pictures
    right = 0
    for i, image in enumerate(seen.images):
        executor.hold(i, image)
        guess = executor.job(i, 0, 1.0)().guess
        right += guess is not None and guess.label == seen.labels[i]
    told = next(p.accuracy for p in made.manifest.points if p.exit == 0)
    assert right / len(seen) == pytest.approx(told, abs=0.02)  # a picture on the edge may fall to the other side
