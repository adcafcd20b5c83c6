"""What docs/distillation.md's figures of a detector were measured with, beside `isthmus models distill` itself.

    python benchmarks/injection.py lay-out unlabelled
    isthmus models distill yolox_nano_416_f32.tflite --pictures unlabelled --pixels 0..255 --fit letterbox --boxes places \
        --epochs 9
    python benchmarks/injection.py score yolox_nano_416_f32.tflite --checkpoint checkpoints/yolox_nano_416_f32-distilled.pt \
        --pictures unlabelled --labels fruit/annotations.json --names coco.txt --samples 60

`lay-out` copies all of Caltech-101, CamVid and Penn-Fudan, and writes some frames of the clips that are not for scoring; all from
the data folder (`ISTHMUS_DATA`). `score` counts average precision of a checkpoint's averaged network, with the real codec at
every step of the ladder and all layers, and of the uncut detector: in a tenth of the time that `models evaluate` takes for every
operating point of a bundle.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.models import flatbuffer
from isthmus.models.bundling.spectral_fit import trained
from isthmus.models.data.boxes import BoxedPicture, boxed
from isthmus.models.injection.halves import Head, Tail
from isthmus.models.injection.network import Injected
from isthmus.models.injection.settings import InjectionSettings
from isthmus.models.injection.teacher import HEAD_SHARE, DetectorTeacher
from isthmus.models.pictures import Intake, data_root, placing, samples
from isthmus.models.splitting.uncut import input_of, runner
from isthmus.proto.codec import Codec
from isthmus.proto.tasks.box_score import Judged, scored
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.detection import Detection

FRAMES_OF_A_DRONE_CLIP, FRAMES_OF_A_CLIP = 3, 20
UNSURE = 0.01
FITTED = 120
Pixels = NDArray[np.uint8]


def lay_out(target: Path) -> None:
    """Write the folder of pictures."""
    root = data_root()
    with zipfile.ZipFile(root / "caltech101" / "images.zip") as archive:
        archive.extractall(target / "caltech101")
    for name in ("camvid", "pennfudan"):
        shutil.copytree(root / name / "images", target / name / "images")
    (target / "video").mkdir()
    clips = [p for p in sorted((root / "video").rglob("*.mp4")) if "drone/test" not in str(p)]
    for path in clips:
        _frames(path, target / "video", FRAMES_OF_A_DRONE_CLIP if "drone" in path.parts else FRAMES_OF_A_CLIP)
    print(f"{sum(1 for p in target.rglob('*') if p.is_file())} pictures")


def _frames(path: Path, target: Path, count: int) -> None:
    clip = cv2.VideoCapture(str(path))
    every, number = max(1, int(clip.get(cv2.CAP_PROP_FRAME_COUNT)) // count), 0
    while (read := clip.read())[0]:
        if number % every == every // 2:
            file = target / f"{path.parent.name}_{path.stem}_{number}.jpg"
            cv2.imwrite(str(file), read[1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        number += 1


class Scorer:
    """Labelled pictures and a detector."""

    def __init__(self, model: Path, labels: Path, names: Path, most: int) -> None:
        graph = flatbuffer.read(model)
        self.teacher = DetectorTeacher.of(graph, input_of(graph, "0..255", fit="letterbox"), head_share=HEAD_SHARE)
        every = boxed(labels)
        self.told: list[BoxedPicture] = [every[i * len(every) // most] for i in range(min(most, len(every)))]
        self.pixels = [each.pixels() for each in self.told]
        self.names, self.intake = names.read_text().splitlines(), Intake(self.teacher.input)
        self.task = Detection(Boxes("places", score=UNSURE), self.teacher.input.shape, classes=len(self.names))

    def score(self, name: str, size: float, answers: Sequence[Sequence[NDArray[np.float32]]]) -> None:
        """Print average precision of what was answered."""
        judged = []
        for told, pixels, arrays in zip(self.told, self.pixels, answers, strict=True):
            guess = self.task.guess(self.task.pack(arrays), temperature=1.0, accuracy=0.0)
            found = placing(pixels.shape, self.teacher.input).outward(guess).detail
            judged.append(Judged(*pixels.shape[:2], told.boxes, found if isinstance(found, tuple) else ()))
        score = scored(judged, self.names)
        print(
            f"{name}: {size:,.0f} bytes, AP50 {score.ap50:.3f}, whatever the class {score.agnostic50:.3f}", flush=True
        )

    @torch.no_grad()
    def checkpoint(self, path: Path, pictures: Path) -> None:
        """Score the uncut detector, and a checkpoint's network at every step."""
        run, settings = runner(self.teacher.graph), InjectionSettings()
        self.score("uncut", 0, [[out[0] for out in run(self.intake(p)).values()] for p in self.pixels])
        network = Injected(self.teacher, settings.inside)
        network.load_state_dict(torch.load(path, weights_only=True)["averaged"])
        head, tail = Head(network).eval(), Tail(self.teacher, network).eval()

        def features(picture: Pixels) -> NDArray[np.float32]:
            return np.ascontiguousarray(head(torch.from_numpy(self.intake(picture)))["features"][0].numpy())

        codec = Codec(trained(np.stack([features(p) for p in samples(pictures, FITTED)]), settings.steps))
        shown = [features(picture) for picture in self.pixels]
        self.score("not rounded", 0, [_answers(tail, x) for x in shown])
        for number, step in enumerate(settings.steps):
            payloads = [codec.encode(x, number) for x in shown]
            size = float(np.mean([sum(map(len, p)) for p in payloads]))
            self.score(f"step {step:g}", size, [_answers(tail, codec.decode(p)) for p in payloads])


def _answers(tail: Callable[..., Sequence[torch.Tensor]], features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [out[0].numpy() for out in tail(torch.from_numpy(features)[None])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["lay-out", "score"])
    parser.add_argument("path", type=Path, help="the folder to fill, or the model")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--names", type=Path)
    parser.add_argument("--samples", type=int, default=300)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "lay-out":
        lay_out(given.path)
    elif None in (given.checkpoint, given.pictures, given.labels, given.names):
        parser.error("--checkpoint, --pictures, --labels and --names are needed to score")
    else:
        Scorer(given.path, given.labels, given.names, given.samples).checkpoint(given.checkpoint, given.pictures)
