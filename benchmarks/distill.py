"""What docs/distillation.md's figures were measured with, beside `isthmus models distill` itself.

    python benchmarks/distill.py lay-out laid-out
    isthmus models distill MODEL.tflite --pictures laid-out/train --validation laid-out/judges …
    python benchmarks/distill.py steadiness laid-out --model MODEL.tflite
    python benchmarks/distill.py webp laid-out --model MODEL.tflite --steps 500
    python benchmarks/distill.py named laid-out --model MODEL.tflite --bundle bundles/MODEL-distilled

`train` are Caltech-101's training pictures, all classes; `judges` the test pictures of the classes that ImageNet's models
know. Both come from the data folder (`ISTHMUS_DATA`). `steadiness` runs the model on the judges and on
the same pictures with a change that nobody sees, or hardly. `webp` tunes a copy of the model to pictures that WebP coded at four
sevenths of their size: the rival of a distilled student, taught as it is and by the same pictures. `named` counts how many of
the judges model and bundle name as Caltech-101 does: agreement takes the model for the truth, and so do its slips.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.models import bundle, flatbuffer, inputs
from isthmus.models.bundle import Bundle
from isthmus.models.bundling import picture_rival
from isthmus.models.data import labelled
from isthmus.models.distillation.pipeline import REDUCED
from isthmus.models.distillation.views import Album, Answers
from isthmus.models.pictures import data_root, squeezed
from isthmus.models.splitting.cuts import IMAGE
from isthmus.models.splitting.uncut import input_of
from isthmus.models.training import losses
from isthmus.models.training.processors import fastest, mixed_precision
from isthmus.models.training.resumable import follow, learning_rate
from isthmus.models.training.tflite_teacher import Original, Teacher, real
from isthmus.models.training.torch_graph import TorchPart

BATCH, PEAK_RATE, AVERAGING, SEED = 16, 1e-4, 0.99, 1
VIEWS = 4
QUALITIES = (10, 30, 50, 70)
TRAINED_QUALITIES = (8, 75)
"""Qualities that the rival learns from."""
Images = NDArray[np.uint8]


def lay_out(target: Path) -> None:
    """Write both folders of pictures."""
    root = data_root() / "caltech101"
    with (root / "imagenet_map.csv").open() as lines:
        mapped = {row["class"] for row in csv.DictReader(lines)}
    with (root / "index.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    wanted = {
        "train": [r["file"] for r in rows if r["split"] == "train"],
        "judges": [r["file"] for r in rows if r["split"] == "test" and r["class"] in mapped],
    }
    with zipfile.ZipFile(root / "images.zip") as archive:
        for folder, files in wanted.items():
            archive.extractall(target / folder, files)
            print(f"{folder}: {len(files)}")


class Judges:
    """The pictures to judge by, the model, and its answers to them."""

    def __init__(self, folder: Path, model: Path) -> None:
        graph = flatbuffer.read(model)
        self.folder, self.teacher = folder, Teacher(graph, input_of(graph))
        self.original = Original(self.teacher)
        judges = self.album("judges")
        self.images = np.stack([squeezed(judges[i], self.teacher.size) for i in range(len(judges))])
        self.truth = self.original.logits(self.images).argmax(1)

    def album(self, name: str) -> Album:
        """The pictures of one of the folders."""
        return Album(self.folder / name, self.teacher.size, self.folder / "cache", print)

    def copy(self) -> TorchPart:
        """The model with gradients."""
        return TorchPart(self.teacher.part("targets", IMAGE, self.teacher.targets))

    def agreement(self, model: TorchPart, images: Images) -> float:
        """The agreement of a copy that is given `images` with the model that is given the judges."""
        picture, right = self.teacher.input, 0
        with torch.no_grad():
            for i in range(0, len(images), BATCH):
                x = labelled.normalised(images[i : i + BATCH], picture.mean, picture.std)
                right += int((model(x)[0].flatten(1).argmax(1).numpy() == self.truth[i : i + BATCH]).sum())
        return right / len(images)


def changed(x: Images) -> dict[str, Images]:
    """Pictures (N, S, S, 3) with a change that nobody sees, or hardly, by its name."""
    rng = np.random.default_rng(0)

    def grained(deviation: float) -> Images:
        noise = rng.normal(0, deviation, x.shape).astype(np.float32)
        grained: Images = np.rint(x + noise).clip(0, 255).astype(np.uint8)
        return grained

    return {
        "brighter by three levels of 255": x + np.minimum(3, 255 - x),
        "one pixel to the right": np.concatenate([x[:, :, :1], x[:, :, :-1]], axis=2),
        "mirrored": x[:, :, ::-1],
        **{f"grain of {d} levels": grained(d) for d in (1, 2, 4, 8)},
    }


def steady(judges: Judges) -> NDArray[np.bool_]:
    """(N,): the judges that are answered alike mirrored, moved by a pixel and under a grain of one level."""
    variants = changed(judges.images)
    wanted = (variants[name] for name in ("mirrored", "one pixel to the right", "grain of 1 levels"))
    alike: NDArray[np.bool_] = np.logical_and.reduce(
        [judges.original.logits(x).argmax(1) == judges.truth for x in wanted]
    )
    return alike


def steadiness(judges: Judges) -> None:
    """How often the model answers as before when the picture looks as before."""
    for name, x in changed(judges.images).items():
        print(f"{name}: {(judges.original.logits(x).argmax(1) == judges.truth).mean():.1%}", flush=True)
    print(f"its weights in float32: {judges.agreement(judges.copy(), judges.images):.1%}")
    print(f"all of mirrored, moved and under a grain of one level: {steady(judges).mean():.1%}")


def named(judges: Judges, made: Bundle) -> None:
    """The judges' own classes, named by the model and at every operating point of the full width."""
    with (data_root() / "caltech101" / "imagenet_map.csv").open() as lines:
        number = {row["class"]: int(row["imagenet_1001_index"]) for row in csv.DictReader(lines)}
    files = sorted(p for p in (judges.folder / "judges").rglob("*") if p.is_file())  # as an album has them
    own = np.array([number[p.parent.name] for p in files])
    print(f"the model: {(judges.truth == own).mean():.1%}")
    outcomes, sizes, sure = made.outcomes(), made.manifest.points, steady(judges)
    for point, label in zip(sizes, outcomes.label.T, strict=True):
        if point.width == 1.0:
            where = f"step {point.step}, {point.layers} layers" if point.exit is None else f"exit {point.exit}"
            as_it = label == judges.truth
            print(
                f"{where}, {point.bytes:.0f} bytes: {(label == own).mean():.1%}, as the model {as_it.mean():.1%}, "
                f"of the steady judges {as_it[sure].mean():.1%}"
            )
    table = inputs.load(made)
    for f, format_ in enumerate(inputs.FORMATS):
        for q, quality in enumerate(inputs.QUALITIES):
            share = (table.label[:, f, q] == own).mean()
            print(f"{format_} {quality}, {table.size_bytes[:, f, q].mean():.0f} bytes, read by the model: {share:.1%}")


def webp(judges: Judges, steps: int) -> None:
    """The copy's agreement before and after it was tuned, by the quality of the pictures that it sees."""
    side, size = round(REDUCED * judges.teacher.size), judges.teacher.size
    device, model = fastest(), judges.copy()

    def report(name: str, copied: TorchPart) -> None:
        for quality in QUALITIES:
            decoded, sizes = picture_rival.coded(picture_rival.resized(judges.images, side), "webp", quality)
            share = judges.agreement(copied, picture_rival.resized(decoded, size))
            print(f"{name}: quality {quality}, {sizes.mean():.0f} bytes, {share:.1%}", flush=True)

    report("as it was", model)
    average = judges.copy()
    model.train().requires_grad_(True).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average.to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=PEAK_RATE)
    for i, (images, logits, hint) in enumerate(_batches(judges, steps, side)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(i / steps, PEAK_RATE)
        optimiser.zero_grad(set_to_none=True)
        with mixed_precision(device):
            outputs = model(labelled.normalised(images, judges.teacher.input.mean, judges.teacher.input.std).to(device))
        aim = hint.permute(0, 3, 1, 2).to(device)
        map_loss = (outputs[1].float() - aim).square().mean() / aim.var((0, 2, 3)).mean()
        loss = losses.distillation(outputs[0].float().flatten(1), logits.to(device), 1.0) + map_loss
        torch.autograd.backward(loss)
        optimiser.step()
        follow(average, model, AVERAGING)
        if i % 50 == 49:
            print(f"step {i + 1} of {steps}: loss {float(loss.detach()):.3f}", flush=True)
    report("tuned", average.cpu().eval())


def _batches(judges: Judges, steps: int, side: int) -> Iterator[tuple[Images, torch.Tensor, torch.Tensor]]:
    """Pictures as WebP leaves them, and what the model says of them as they are: logits (N, K) and maps (N, H, W, C)."""
    rng, album, targets = np.random.default_rng(SEED), judges.album("train"), judges.teacher.targets
    answers = Answers(album, judges.teacher, seed=SEED)
    for i in range(steps):
        number = VIEWS - 1 - i % VIEWS
        said = answers.of_view(number, print)
        index = np.sort(rng.choice(len(album), BATCH, replace=False))
        coarse = np.stack(
            [_coarse(answers.image(int(k), number), side, int(rng.integers(*TRAINED_QUALITIES))) for k in index]
        )
        logits, hint = (torch.from_numpy(real(said[name][index], targets[name])) for name in ("logits", "hint"))
        yield coarse, logits.flatten(1), hint


def _coarse(image: Images, side: int, quality: int) -> Images:
    decoded, _ = picture_rival.coded(picture_rival.resized(image[None], side), "webp", quality)
    enlarged: Images = picture_rival.resized(decoded, image.shape[0])[0]
    return enlarged


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["lay-out", "steadiness", "webp", "named"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--bundle", default="bundles/mobilenet_v2_1.0_224_quant-distilled")
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "lay-out":
        lay_out(given.folder)
    elif given.model is None:
        parser.error("--model: name the .tflite")
    elif given.what == "steadiness":
        steadiness(Judges(given.folder, given.model))
    elif given.what == "named":
        named(Judges(given.folder, given.model), bundle.load(given.bundle))
    else:
        webp(Judges(given.folder, given.model), given.steps)
