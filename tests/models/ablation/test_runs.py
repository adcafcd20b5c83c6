"""Every variant trains, a table goes on where it was cut off, and what it says is read at equal bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")


from isthmus.cli.main import application  # noqa: E402
from isthmus.models.ablation import report, variants  # noqa: E402
from isthmus.models.ablation.rows import AtWidth, Budget, Row, at_bytes  # noqa: E402
from isthmus.models.ablation.runs import Ablation  # noqa: E402
from isthmus.models.ablation.trainers import FrozenHeadTrainer, VectorTrainer, leading_channels  # noqa: E402
from isthmus.models.ablation.vector_quantiser import STAGES, Codebooks, size_bytes  # noqa: E402
from isthmus.models.data import labelled  # noqa: E402
from isthmus.models.data.corpora import CORPORA, Corpus, halves  # noqa: E402
from isthmus.models.data.labelled import Validation  # noqa: E402
from isthmus.models.training.backbones import Architecture, Conv, SplitNetwork  # noqa: E402
from isthmus.models.training.recipes import RECIPES, Recipe  # noqa: E402
from isthmus.models.training.trainer import Trainer  # noqa: E402
from isthmus.proto.errors import ConfigError, DataError  # noqa: E402

ARCH = Architecture(
    input_size=16,
    classes=3,
    widths=(0.25, 0.5, 1.0),
    stages=((Conv(32, stride=2),), (Conv(32, stride=2), Conv(32, residual=True))),
    exit_channels=(32, 32),
    bottleneck_channels=8,
    tail=(Conv(32), Conv(32, residual=True)),
)
RECIPE = Recipe(arch=ARCH, epochs=3, steps=(0.5, 1.0))
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def pictures(n: int, seed: int) -> labelled.Pictures:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 120, (n, 16, 16, 3))
    images[np.arange(n), :, :, labels] += 70
    return labelled.Pictures(images.astype(np.uint8), labels.astype(np.int64))


TRAINING = labelled.TrainingSet(pictures(256, 0), MEAN, STD, shift_pixels=1, flip=True)
CORPUS = Corpus(("r", "g", "b"), lambda: TRAINING, lambda: Validation(pictures(60, 1), halves(60), MEAN, STD))


def ablation(folder: Path, epochs: int = 1) -> Ablation:
    torch.set_num_threads(1)
    return Ablation(Budget("tiny", epochs, 256, 60), RECIPE, CORPUS, folder)


def silent(_: str) -> None:
    pass


def test_a_whitened_convolution_is_not_learnt_and_its_strongest_components_come_first() -> None:
    torch.set_num_threads(1)
    trainer = Trainer(replace(RECIPE, whitened=True), TRAINING, seed=1)
    first = trainer.network.head.first
    before = first.weight.clone()
    x = labelled.normalised(TRAINING.pictures.images, MEAN, STD)
    trainer.step(x, torch.from_numpy(TRAINING.pictures.labels), 0.5)
    assert torch.equal(first.weight, before)
    kept = torch.nn.functional.conv2d(x, before).transpose(0, 1).flatten(1)  # (C, positions), about 0 where x is
    power = kept[::2].square().mean(1)  # each component is followed by its negative
    assert torch.allclose(kept[0], -kept[1])
    assert (power[:-1] >= 0.9 * power[1:]).all()


def test_the_full_width_is_alone_until_the_others_join() -> None:
    """The norms of the other widths have seen nothing before that."""
    torch.set_num_threads(1)
    trainer = Trainer(replace(RECIPE, slim_from=0.5), TRAINING, seed=1)
    x, labels = labelled.normalised(TRAINING.pictures.images, MEAN, STD), torch.from_numpy(TRAINING.pictures.labels)
    norms = trainer.network.head.first.norms
    trainer.step(x, labels, 0.4)
    assert [int(norms[key].num_batches_tracked) for key in ("w025", "w100")] == [0, 1]
    trainer.step(x, labels, 0.6)
    assert trainer.network.head.first.norms["w025"].running_mean.abs().sum() > 0


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_every_variant_makes_its_steps(name: str) -> None:
    torch.set_num_threads(1)
    variant, base = variants.VARIANTS[name], variants.shortened(RECIPE, 1)
    teacher: dict[str, Any] = {"teacher": SplitNetwork(variants.teacher_of(base).arch).eval()} if variant.taught else {}
    trainer = variant.trainer(variant.recipe(base), TRAINING, seed=1, **teacher)
    x = labelled.normalised(TRAINING.pictures.images[:32], MEAN, STD)
    labels = torch.from_numpy(TRAINING.pictures.labels[:32])
    taken = [trainer.step(x, labels, progress) for progress in (0.1, 0.45, 0.9)]
    assert np.isfinite(taken).all()
    trainer.averaged.eval()
    for width in trainer.recipe.arch.widths:
        assert trainer.averaged.answer(x, width).shape == (32, 3)


def test_a_table_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    told: list[str] = []
    table = ablation(tmp_path / "table")
    assert [(r.variant, r.seed) for r in table.run(["base"], [1], silent)] == [("base", 1)]
    rows = table.run(["base", "vector"], [1], told.append)
    assert [r.variant for r in rows] == ["base", "vector"]
    assert told[0] == "run 1 of 1: vector, seed 1"
    assert [w.width for w in rows[0].widths] == [0.25, 0.5, 1.0]
    assert [w.width for w in rows[1].widths] == [0.25, 1.0]
    assert rows[1].widths[0].finest_bytes == size_bytes(16, STAGES)
    assert [p.name for p in (tmp_path / "table").iterdir()] == ["results.jsonl"]


def test_a_taught_run_and_its_teacher_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    rows = ablation(tmp_path / "table").run(["ghnd", "guide"], [1], silent)
    assert [r.variant for r in rows] == ["ghnd", "guide"]


def test_a_table_of_another_budget_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    ablation(tmp_path).run(["base"], [1], silent)
    with pytest.raises(DataError, match=r"results\.jsonl: line 1 was made with .*another folder"):
        ablation(tmp_path, epochs=2).run(["base"], [2], silent)
    wider = replace(RECIPE, arch=variants.scaled(ARCH, 2))
    with pytest.raises(DataError, match=r"line 1 is of a head of .* MFLOP, this recipe's base takes .*another folder"):
        replace(ablation(tmp_path), recipe=wider).rows()
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"variant": "ba')
    with pytest.raises(DataError, match=r"results\.jsonl: line 2 is not a finished run"):
        ablation(tmp_path).rows()
    with pytest.raises(ConfigError, match="sugar: no such variant; there are base, "):
        ablation(tmp_path / "other").run(["sugar"], [1], silent)


def test_accuracy_is_read_at_equal_bytes() -> None:
    ladder = [(200.0, 0.8), (50.0, 0.5), (100.0, 0.7), (120.0, 0.6)]
    assert at_bytes(ladder, 100) == pytest.approx(0.7)
    assert at_bytes(ladder, 120) == pytest.approx(
        0.7 + 0.1 * np.log2(1.2)
    )  # the dear point that a cheap one beats is left out
    assert at_bytes(ladder, 1000) == 0.8
    assert at_bytes(ladder, 49) is None


def test_an_ensemble_and_a_fast_trunk_cost_the_flops_of_the_sliced_head() -> None:
    arch = replace(ARCH, input_size=32)
    full = sum(SplitNetwork(arch).head.macs(1.0))
    for other in (variants.ensemble(arch), variants.fast_down_sampling(arch)):
        assert other.bottleneck_size == arch.bottleneck_size
        assert sum(SplitNetwork(other).head.macs(1.0)) == pytest.approx(full, rel=0.35)


def test_a_frozen_head_stands_still_and_is_the_averaged_one() -> None:
    trainer = FrozenHeadTrainer(variants.shortened(RECIPE, 1), TRAINING, seed=1)
    trainer.freeze_from = 0.5
    x = labelled.normalised(TRAINING.pictures.images[:32], MEAN, STD)
    labels = torch.from_numpy(TRAINING.pictures.labels[:32])
    trainer.step(x, labels, 0.4)
    trainer.step(x, labels, 0.6)
    before = [p.clone() for p in trainer.network.head.state_dict().values()]
    tail = trainer.network.tail.linear.weight.detach().clone()
    trainer.step(x, labels, 0.7)
    for old, new, averaged in zip(
        before, trainer.network.head.state_dict().values(), trainer.averaged.head.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(old, new)
        torch.testing.assert_close(averaged, new)
    assert not torch.equal(tail, trainer.network.tail.linear.weight)


def test_dropped_channels_are_the_last_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = leading_channels(torch.ones(64, 8, 2, 2), 0.5, generator)[:, :, 0, 0]
    assert (kept.diff(dim=1) <= 0).all()
    assert kept[:, 0].all()
    whole = int((kept.sum(1) == 8).sum())
    assert 32 <= whole < 60
    assert torch.equal(leading_channels(kept[..., None, None], 0.0, generator)[..., 0, 0], kept)


def test_codebooks_go_on_with_the_run_that_they_belong_to(tmp_path: Path) -> None:
    """They were not in the checkpoint: a run that was taken up again began with empty ones."""
    torch.set_num_threads(1)
    recipe = replace(RECIPE, epochs=1)
    first = VectorTrainer(recipe, TRAINING, seed=1)
    first.run(tmp_path / "vector.pt", silent)
    second = VectorTrainer(recipe, TRAINING, seed=1)
    second.run(tmp_path / "vector.pt", silent)
    assert torch.equal(second.codebooks.entries, first.codebooks.entries)
    assert second.codebooks.entries.any()
    Trainer(recipe, TRAINING, seed=1).save(tmp_path / "vector.pt")
    with pytest.raises(DataError, match=r"vector\.pt: a checkpoint of another architecture"):
        VectorTrainer(recipe, TRAINING, seed=1).load(tmp_path / "vector.pt")


def test_codebooks_get_closer_with_every_stage_and_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    books = Codebooks(4, generator, entries=16)
    features = torch.randn(32, 4, 4, 4, generator=generator)

    def errors() -> list[float]:
        return [float((p - features).square().mean()) for p in books.prefixes(features)]

    books.prefixes(features, learn=True)
    first = errors()
    for _ in range(50):
        books.prefixes(features, learn=True)
    assert errors()[0] < first[0]
    assert errors() == sorted(errors(), reverse=True)
    x = features.clone().requires_grad_()
    books.dropped_out(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad == 1).all())


def at_width(width: float, accuracy: float, wide: float | None) -> AtWidth:
    return AtWidth(width, 10 * width, accuracy, accuracy, 200.0, wide, None, accuracy, 0.3, 0.02)


def replaced(width: float, head_mflop: float) -> AtWidth:
    return msgspec.structs.replace(at_width(width, 0.7, None), head_mflop=head_mflop)


def table() -> list[Row]:
    """Two seeds of the base, of one that is a point and three points better, and of a network of its own."""
    budget = Budget("cifar10", 4, 6000, 2000)

    def row(variant: str, seed: int, full: float) -> Row:
        return Row(variant, seed, budget, (at_width(0.25, full - 0.1, None), at_width(1.0, full, full - 0.02)))

    rows = [row("base", 1, 0.60), row("base", 2, 0.62), row("no-rate", 1, 0.61), row("no-rate", 2, 0.65)]
    return [*rows, Row("separate-narrow", 1, budget, (at_width(0.25, 0.52, 0.5),))]


def test_a_change_is_to_the_base_of_the_same_seed() -> None:
    rows = table()
    assert report.changes(rows, "no-rate", 1.0, "at 160 B") == pytest.approx({1: 1.0, 2: 3.0})
    assert report.changes(rows, "no-rate", 0.25, "at 160 B") == {}
    assert report.changes(rows, "separate-narrow", 0.25, "unquantised") == pytest.approx({1: 2.0})
    assert report.spread(rows, 1.0, "unquantised") == pytest.approx(2.0)


def test_a_table_is_written_with_its_plots(tmp_path: Path) -> None:
    report.write(tmp_path, table(), command="isthmus models ablate cifar10")
    names = {f"{plot}.{suffix}" for plot in ("ingredients", "designs") for suffix in ("png", "svg")}
    assert {p.name for p in tmp_path.iterdir()} == {"table.md", "table.csv", "manifest.json", *names}
    text = (tmp_path / "table.md").read_text()
    assert "| **base** | 61.0 (60.0, 62.0) |" in text
    assert "| without the rate loss (`no-rate`) | +2.0 (+1.0, +3.0) |" in text
    assert "ensemble" not in text
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 10


def test_the_table_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "tiny", RECIPE)
    monkeypatch.setitem(CORPORA, "tiny", CORPUS)
    arguments = ["models", "ablate", "tiny", "--seeds", "1", "--epochs", "1", "--pictures", "256", "--tested", "60"]
    arguments += ["--only", "base", "--out", str(tmp_path / "table")]
    made = CliRunner().invoke(application(arguments), arguments)
    assert made.exit_code == 0, made.output
    assert "run 1 of 1: base, seed 1" in made.output
    assert (tmp_path / "table" / "table.md").is_file()


def test_widths_are_compared_at_like_flops_only() -> None:
    rows = [*table(), Row("ensemble", 1, table()[0].budget, (replaced(0.25, 20.0), replaced(1.0, 11.0)))]
    assert report.changes(rows, "ensemble", 1.0, "unquantised") == pytest.approx({1: 10.0})
    assert report.changes(rows, "ensemble", 0.25, "unquantised") == {}
