"""`isthmus models clips`: what a bundle finds in whole clips, for the emulator, and how its answers age, for the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from isthmus.cli.options import NOTHING, if_interrupted, require
from isthmus.models import bundle as bundles
from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Box

if TYPE_CHECKING:
    from isthmus.models.data.clips import Clip


@if_interrupted(NOTHING)
def clips(
    name: str = typer.Argument(help="A bundle that finds boxes: of the zoo, or a folder."),
    clips: list[Path] = typer.Argument(help="Clips, or folders of them: NAME.mp4, and beside each NAME.boxes.csv."),
    frames: int | None = typer.Option(None, min=2, help="The first so many frames of each clip [all]."),
    pictures: bool = typer.Option(True, help="Also what is found in pictures sent as WebP, for the rival that does."),
    ageing: Path | None = typer.Option(
        None, help="Count how answers age and write the bundle that says so here; clips that nothing was trained on."
    ),
    every: int = typer.Option(1, min=1, help="Every so many clips, in the order of their names."),
    threads: int = typer.Option(1, min=1, help="Threads of head and tail."),
) -> None:
    """Run a bundle on whole clips, frame by frame: writes sequences.npz beside it, or with --ageing a bundle that tracks."""
    require("server")
    from isthmus.emulation.sequences import ageing as ages
    from isthmus.emulation.sequences import table as sequences
    from isthmus.emulation.sequences.measure import measure
    from isthmus.models.bundling import writer
    from isthmus.models.data import clips as footage

    bundle = bundles.load(name)
    if ageing is not None:
        writer.check_replaceable(ageing, clips)
    found = footage.named(clips)[::every]
    table = measure(
        bundle,
        [(_Labelled(clip, bundle.manifest.labels), _fps(clip.file)) for clip in found],
        typer.echo,
        frames=frames,
        pictures=pictures and ageing is None,
        threads=threads,
    )
    if ageing is None:
        typer.echo(f"{sequences.save(bundle, table)}: {len(table.clip)} frames of {len(found)} clips")
        return
    made = writer.changed(bundle, ages.aged(bundle.manifest, ages.counted(table, bundle.manifest)), ageing)
    typer.echo(f"{made.folder}: answers age as counted on {len(found)} clips; bundle {made.sha256.hex()}")


@dataclass(frozen=True)
class _Labelled:
    """A clip whose classes are a bundle's."""

    clip: Clip
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.clip.name

    def frames(self, every: int = 1) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        return self.clip.frames(every)

    def truth(self, number: int, shape: tuple[int, ...]) -> tuple[Box, ...]:
        height, width = shape[:2]
        boxes = []
        for label, (top, left, bottom, right) in self.clip.boxes.get(number, ()):
            if label not in self.labels:
                raise DataError(f"{self.clip.file}: shows {label}; the bundle knows {', '.join(self.labels)}")
            place = top / height, left / width, bottom / height, right / width
            boxes.append(Box(self.labels.index(label), 1.0, *place))
        return tuple(boxes)


def _fps(file: Path) -> float:
    video = cv2.VideoCapture(str(file))
    fps = float(video.get(cv2.CAP_PROP_FPS))
    video.release()
    if not fps > 0:
        raise DataError(f"{file}: does not say how many frames a second it has")
    return fps
