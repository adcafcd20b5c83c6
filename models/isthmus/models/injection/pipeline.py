"""Makes a bundle from a detector and a folder of pictures: what `isthmus models distill` does with a detector.

Nothing here asks for labels: what is right is what the uncut detector answers. Pictures that judge are never trained on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.models.bundling.spectral_fit import trained
from isthmus.models.distillation.views import Album
from isthmus.models.flatbuffer import Graph
from isthmus.models.injection import halves
from isthmus.models.injection.halves import Exported
from isthmus.models.injection.measuring import judging, measured
from isthmus.models.injection.network import Injected
from isthmus.models.injection.settings import InjectionSettings
from isthmus.models.injection.teacher import DetectorTeacher, encoder_flops
from isthmus.models.injection.trainer import InjectionTrainer
from isthmus.models.injection.writing import Made, write
from isthmus.models.picture_ladder import Input
from isthmus.models.pictures import Intake
from isthmus.models.progress import Report
from isthmus.models.splitting.outputs import Reading
from isthmus.models.splitting.split import fallback_of
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto.errors import DataError

SET_ASIDE = 10
"""One picture in so many is kept to judge by, unless others are given."""
MOST_JUDGED, FITTED = 200, 200
"""The most pictures to judge by, and to fit the codec on: every operating point answers each judge."""
FEWEST = 16
"""The fewest pictures to train on, and to judge by."""
CHECKED = 4
"""Pictures on which the exports are compared with torch."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Small:
    """A second, small detector that answers on the device."""

    graph: Graph
    input: Input
    reading: Reading | None


@dataclass(frozen=True)
class Injection:
    """What is to be cut, the pictures, and where everything is kept."""

    teacher: DetectorTeacher
    reading: Reading
    pictures: Path
    validation: Path | None
    settings: InjectionSettings
    checkpoint: Path
    cache: Path
    seed: int
    small: Small | None = None

    def run(self, target: Path, labels: tuple[str, ...], made_by: str, report: Report) -> Bundle:
        """Train (or go on), measure every operating point with the exported files, and put the bundle at `target`.

        Raises DataError when there are too few pictures or the checkpoint is of another run, ModelError when the detector
        has a layer without a gradient, or finds nothing in any of the judging pictures.
        """
        album = Album(self.pictures, self.teacher.input.size, self.cache, report)
        training_index, judges = self._shared_out(album, report)
        uncut, fallback = self._uncut(judges)
        trainer = InjectionTrainer(self.teacher, album, training_index, self.settings, seed=self.seed)
        report(self._described(trainer))
        network = trainer.run(self.checkpoint, report).cpu().eval()
        sample = [album[int(i)] for i in _spread(training_index, FITTED)]
        with tempfile.TemporaryDirectory() as kept:
            folder = Path(kept)
            gap = self._exported(folder, network, uncut)
            exported, intake = Exported(folder), Intake(self.teacher.input)
            features = np.stack([exported.head(intake(picture)) for picture in sample])
            codec = trained(features, self.settings.steps)
            found = measured(uncut, exported, codec, fallback, report)
            made = Made(self.teacher, uncut, fallback, network, found, codec, gap, len(training_index))
            return write(target, folder, made, labels=labels, made_by=made_by)

    def _shared_out(self, album: Album, report: Report) -> tuple[NDArray[np.int64], list[Pixels]]:
        """The pictures of the album that are trained on, and those that judge."""
        index = np.arange(len(album))
        aside, training_index = index[::SET_ASIDE], index[index % SET_ASIDE > 0]
        judges, whence = album, self.pictures
        if self.validation is not None:
            judges, whence = Album(self.validation, self.teacher.input.size, self.cache, report), self.validation
            aside = np.arange(len(judges))
        for path, count in ((self.pictures, len(training_index)), (whence, len(aside))):
            if count < FEWEST:
                raise DataError(
                    f"{path}: {count} pictures to learn from or to judge by; give {FEWEST} for each, or more"
                )
        return training_index, [np.array(judges[int(i)]) for i in _spread(aside, MOST_JUDGED)]

    def _uncut(self, judges: Sequence[Pixels]) -> tuple[Uncut, Uncut | None]:
        teacher = self.teacher
        uncut = Uncut.of(teacher.graph, teacher.input, self.reading, judges)
        if self.small is None:
            return judging(uncut), None
        fallback = fallback_of(uncut, self.small.graph, self.small.input, self.small.reading, judges)
        return judging(uncut), judging(fallback)

    def _exported(self, folder: Path, network: Injected, uncut: Uncut) -> tuple[float, float]:
        halves.export_head(self.teacher, network, folder / halves.HEAD_FILE)
        halves.export_tail(self.teacher, network, folder / halves.TAIL_FILE)
        return halves.check_parity(self.teacher, network, folder, uncut.images[:CHECKED])

    def _described(self, trainer: InjectionTrainer) -> str:
        teacher, cells = self.teacher, trainer.network.cells
        head = teacher.cut.head_flops + encoder_flops(teacher.crossing)
        return (
            f"cut after operator {teacher.cut.after}; bottleneck {cells[0]}×{cells[1]}×{trainer.network.kept}; head "
            f"{head / 1e6:.1f} of {teacher.graph.flops / 1e6:.1f} MFLOP ({head / teacher.graph.flops:.1%}); it learns from "
            f"{len(trainer.training_index)} pictures, mostly at {trainer.small} pixels"
        )


def _spread(index: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The numbers of `index`, at most `most` of them, taken evenly."""
    return index if len(index) <= most else index[np.arange(most) * len(index) // most]
