"""Would sending a part of the picture pay? How much of it is around everything that a small detector finds.

    python benchmarks/regions.py fastestdet_352_f32.tflite fruit/images pennfudan/images drone/test/*.mp4

Each source is a folder or archive of pictures, or clips, which together are one more: of these every sixtieth frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models import flatbuffer, pictures
from isthmus.models.flatbuffer import written
from isthmus.models.litert import signature_of
from isthmus.models.picture_ladder import Region
from isthmus.models.pictures import Intake, placing
from isthmus.models.regions import WHOLE, region_of
from isthmus.models.splitting.cuts import whole
from isthmus.models.splitting.uncut import input_of
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.detection import Detection

EVERY = 60


def frames(clips: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Every sixtieth frame of clips, from the thirtieth on, (H, W, 3) RGB."""
    for clip in clips:
        capture, number = cv2.VideoCapture(str(clip)), 0
        while (read := capture.read())[0]:
            if number % EVERY == EVERY // 2:
                yield np.asarray(read[1][:, :, ::-1], np.uint8)
            number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .tflite detector that gives places, classes and scores")
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--most", type=int, default=100, help="of each source")
    arguments = parser.parse_args()
    graph = flatbuffer.read(arguments.model)
    run = signature_of(written([whole(graph, "whole")]), "whole", whose=graph.path)
    taken = input_of(graph, "0..255", fit="letterbox")
    task, intake = Detection(Boxes(), taken.shape), Intake(taken)

    def place(pixels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
        packed = task.pack([array[0] for array in run(image=intake(pixels)).values()])
        guess = placing(pixels.shape, taken).outward(task.guess(packed, temperature=1.0, accuracy=1.0))
        return region_of(guess, Region())

    clips = [source for source in arguments.sources if source.suffix == ".mp4"]
    every = [(str(s), pictures.samples(s, arguments.most)) for s in arguments.sources if s not in clips]
    if clips:
        every.append((f"{len(clips)} clips", list(frames(clips))[: arguments.most]))
    for name, shown in every:
        places = [place(pixels) for pixels in shown]
        areas = np.array([(bottom - top) * (right - left) for top, left, bottom, right in places])
        small = float(np.mean(areas < 0.5))
        print(
            f"{name}: {len(areas)} pictures, part of {areas.mean():.3f} on average, {np.median(areas):.3f} at the median; "
            f"less than half in {small:.0%}, the whole picture in {places.count(WHOLE) / len(places):.0%}"
        )


if __name__ == "__main__":
    main()
