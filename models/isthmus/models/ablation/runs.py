"""What each choice in a training is worth: the same short training with one thing changed, several seeds of each.

Every finished run is one row of `results.jsonl`; a run that is there already is not made again, so that a table that was
cut off goes on where it was.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from isthmus.models.ablation.rows import NARROW_BYTES, WIDE_BYTES, Budget, Row, measured_row, mflop_of
from isthmus.models.ablation.trainers import TaughtTrainer, UnquantisedTrainer
from isthmus.models.ablation.variants import VARIANTS, Variant, shortened, teacher_of
from isthmus.models.data import corpora
from isthmus.models.data.corpora import Corpus
from isthmus.models.data.labelled import Pictures, Validation
from isthmus.models.progress import Report
from isthmus.models.training import late_exits
from isthmus.models.training.backbones import Head
from isthmus.models.training.recipes import Recipe
from isthmus.models.training.trainer import Trainer
from isthmus.proto.errors import ConfigError, DataError


@dataclass(frozen=True)
class Ablation:
    """One table in the making, in a folder of its own: `recipe` on the pictures of `corpus`."""

    budget: Budget
    recipe: Recipe
    corpus: Corpus
    folder: Path

    @property
    def rows_path(self) -> Path:
        """A JSON object a line, in the order in which runs finished."""
        return self.folder / "results.jsonl"

    def rows(self) -> list[Row]:
        """The finished runs. DataError when they were given another budget or another network, or cannot be read."""
        if not self.rows_path.is_file():
            return []
        rows = []
        for n, line in enumerate(self.rows_path.read_text().splitlines(), 1):
            try:
                rows.append(msgspec.json.decode(line, type=Row))
            except msgspec.DecodeError as error:
                raise DataError(f"{self.rows_path}: line {n} is not a finished run ({error}); delete it") from error
            if rows[-1].budget != self.budget:
                made = json.dumps(msgspec.to_builtins(rows[-1].budget))
                raise DataError(f"{self.rows_path}: line {n} was made with {made}; take that, or another folder")
            self._check_network(rows[-1], n)
        return rows

    def _check_network(self, row: Row, line: int) -> None:
        """A recipe may have changed since; the FLOPs of the full-width head show it."""
        if row.variant not in VARIANTS:
            return
        arch = VARIANTS[row.variant].recipe(shortened(self.recipe, self.budget.epochs)).arch
        mflop, found = mflop_of(Head(arch), row.widths[-1].width), row.widths[-1].head_mflop
        if mflop != found:
            raise DataError(
                f"{self.rows_path}: line {line} is of a head of {found:g} MFLOP, this recipe's {row.variant} takes {mflop:g}; "
                "take another folder"
            )

    def run(self, variants: Sequence[str], seeds: Sequence[int], report: Report) -> list[Row]:
        """Make every run that is not there yet, all variants of a seed before the next seed; the rows of all.

        ConfigError when a variant is unknown.
        """
        if unknown := [name for name in variants if name not in VARIANTS]:
            raise ConfigError(f"{', '.join(unknown)}: no such variant; there are {', '.join(VARIANTS)}")
        done = {(row.variant, row.seed) for row in self.rows()}
        todo = [(name, seed) for seed in seeds for name in variants if (name, seed) not in done]
        if not todo:
            return self.rows()
        self.folder.mkdir(parents=True, exist_ok=True)
        bench = _Bench(self, report)
        with tempfile.TemporaryDirectory() as scratch:
            for i, (name, seed) in enumerate(todo, 1):
                report(f"run {i} of {len(todo)}: {name}, seed {seed}")
                row = bench.run(name, seed, Path(scratch))
                with self.rows_path.open("ab") as file:
                    file.write(msgspec.json.encode(row) + b"\n")
                report(f"  {summary(row)}")
        return self.rows()


def summary(row: Row) -> str:
    """A finished run as one line of text."""
    at = row.widths[-1]
    read_off = [
        f"{100 * a:.1f} at {size} B" for a, size in ((at.at_wide, WIDE_BYTES), (at.at_narrow, NARROW_BYTES)) if a
    ]
    return f"width {at.width:g}: {', '.join([f'{100 * at.unquantised:.1f} % unquantised', *read_off])}"


class _Bench:
    """The pictures, read once, and the teachers that several variants have in common."""

    def __init__(self, ablation: Ablation, report: Report) -> None:
        self.budget, self.report = ablation.budget, report
        self.base = shortened(ablation.recipe, ablation.budget.epochs)
        whole, test = ablation.corpus.training(), ablation.corpus.validation()
        self.training = replace(whole, pictures=_first(whole.pictures, self.budget.pictures))
        part = _first(test.pictures, self.budget.tested)
        self.validation = Validation(part, corpora.halves(len(part)), test.mean, test.std)

    def run(self, name: str, seed: int, scratch: Path) -> Row:
        """Train one variant and measure it."""
        variant = VARIANTS[name]
        trainer = self._trainer(variant, seed, scratch)
        self._train(trainer, scratch / f"{name}-{seed}.pt")
        recipe = trainer.recipe
        if recipe.late_exit_epochs:
            late_exits.retrain(trainer.averaged, recipe, self.training, seed=seed, report=lambda _: None)
        widths = recipe.arch.widths
        read_at = widths if variant.every_width else tuple(sorted({widths[0], widths[-1]}))
        return measured_row(name, self.budget, trainer, self.validation, read_at)

    def _trainer(self, variant: Variant, seed: int, scratch: Path) -> Trainer:
        """The variant's trainer, with a teacher that is trained where it takes one."""
        recipe = variant.recipe(self.base)
        if not issubclass(variant.trainer, TaughtTrainer):
            return variant.trainer(recipe, self.training, seed=seed)
        teacher = UnquantisedTrainer(teacher_of(self.base), self.training, seed=seed)
        self._train(teacher, scratch / f"teacher-{seed}.pt")
        return variant.trainer(recipe, self.training, seed=seed, teacher=teacher.averaged)

    def _train(self, trainer: Trainer, checkpoint: Path) -> None:
        """Train to the end; nothing is left to do where `checkpoint` was finished before."""
        trainer.run(checkpoint, lambda line: None if line.startswith("  ") else self.report(f"  {line}"))


def _first(pictures: Pictures, n: int) -> Pictures:
    return Pictures(pictures.images[:n], pictures.labels[:n])
