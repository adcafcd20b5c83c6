"""The neural filter and the similar-frame gate on real video: what they save, and what they lose by it.

    python benchmarks/filter.py [--out docs/results/filter] [--filters filters] [--seed 1]

Cameras: the two videos of `intel`, whole; the four of `sbi`, each as four zones (its quarters), since as a whole they are
never empty; the scenes of `signs`. A frame is of interest where a box lies in it (intel), where at least half a percent of
a zone is foreground by its mask (sbi; less than that, or an unknown border alone, is left out), where there is a sign
(signs). A filter is trained on the first half of a camera, its threshold chosen on the next fifth, and scored on the rest
(`footage.Footage.parts`); a camera whose first parts show only one kind of frame gets none, and is named.

The gate is scored on whole videos by driving the agent's own: every frame that it lets through is answered rightly, the
others get the kept answer, which is how many objects there are. No part of the gate is fitted to any of this.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib.pyplot as plt
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.device.capture.gate import Gate, Kept, Sketch, change, sketched
from isthmus.device.neural_filter import NeuralFilter
from isthmus.models import bundle, scenes
from isthmus.models.bundling.calibration import softmax
from isthmus.models.bundling.shipped import Shipped
from isthmus.models.data import labelled
from isthmus.models.filtering import footage, train
from isthmus.models.filtering.footage import Footage
from isthmus.models.pictures import data_root, squeezed
from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Answer, AnswerSource, Reason

INTEL = ("car-detection", "one-by-one-person-detection")
SBI = ("caviar1", "hall", "highway1", "humanbody2")
FOREGROUND, UNKNOWN = 255, 170
LEAST_SHARE = 0.005
THRESHOLDS = (4.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0)
GATE, AGE_S = 10.0, 2.0
"""As docs/filter.md recommends."""
SCENES, DRIVE_FRAMES, DRIVE_FPS = 4000, 900, 15.0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Seen:
    """A video as the gate sees it."""

    name: str
    fps: float
    sketches: list[Sketch]
    objects: NDArray[np.int64]
    certain: NDArray[np.bool_]


def zones(name: str) -> list[Footage]:
    """The quarters of an sbi video, labelled by its masks."""
    path = data_root() / "video" / "sbi" / f"{name}.mp4"
    pictures = np.stack(list(footage.frames(path)))
    with zipfile.ZipFile(path.with_suffix(".masks.zip")) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".png"))
        masks = np.stack([cv2.imdecode(np.frombuffer(archive.read(n), np.uint8), cv2.IMREAD_GRAYSCALE) for n in names])
    _, height, width = masks.shape
    found = []
    for i in range(4):
        rows = slice(i // 2 * height // 2, (i // 2 + 1) * height // 2)
        columns = slice(i % 2 * width // 2, (i % 2 + 1) * width // 2)
        share = (masks[:, rows, columns] == FOREGROUND).mean((1, 2))
        unknown = (masks[:, rows, columns] == UNKNOWN).any((1, 2))
        interesting = share >= LEAST_SHARE
        certain = interesting | ((share == 0) & ~unknown)
        small = np.stack([squeezed(p[rows, columns], train.SIZE) for p in pictures])
        found.append(Footage(f"{name} zone {i + 1}", small, interesting, certain))
    return found


def seen(path: Path) -> Seen:
    """A video with its count of objects a frame."""
    sketches = [sketched(picture) for picture in footage.frames(path)]
    objects, certain = np.zeros(len(sketches), np.int64), np.ones(len(sketches), bool)
    for row in csv.DictReader(io.StringIO(path.with_suffix(".boxes.csv").read_text())):
        objects[int(row["frame"])] += 1
        certain[int(row["frame"])] &= row.get("uncertain") != "1"
    fps = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)
    return Seen(path.stem, fps, sketches, objects, certain)


def drive(seed: int) -> Seen:
    """The `signs` stream from a moving car; its objects are classes, nothing being 0."""
    film = scenes.Drive(seed, DRIVE_FPS)
    pictures = [film.frame(i) for i in range(DRIVE_FRAMES)]
    labels = np.array([p.label for p in pictures])
    return Seen("signs", DRIVE_FPS, [sketched(p.image) for p in pictures], labels, np.ones(len(labels), bool))


def answered(frame: int, objects: int, now: float) -> Answer:
    return Answer(frame, objects, 1.0, AnswerSource.SERVER, Reason.RETURNED, None, now, 0.0, True, 0)


def gated(video: Seen, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which frames the gate skips, and what every frame is answered (N,)."""
    gate, skipped, told = Gate(threshold, AGE_S), np.zeros(len(video.sketches), bool), video.objects.copy()
    for i, sketch in enumerate(video.sketches):
        now = i / video.fps
        if kept := gate.repeated(sketch, now=now):
            skipped[i], told[i] = True, kept.answer.label or 0
        else:
            gate.keep(Kept(sketch, now, answered(i, int(video.objects[i]), now), None))
    return skipped, told


def gate_score(video: Seen, threshold: float) -> dict[str, Any]:
    """Shares of all certain frames: skipped, answered wrongly; of those of interest: answered as empty."""
    skipped, told = gated(video, threshold)
    certain, interesting = video.certain, (video.objects > 0) & video.certain
    lost = interesting & (told == 0)
    changes = np.flatnonzero(np.diff(video.objects) != 0) + 1
    changes = changes[certain[changes]]
    return {
        "threshold": threshold,
        "skipped": round(float(skipped[certain].mean()), 4),
        "lost": round(float(lost.sum() / max(1, interesting.sum())), 4),
        "wrong": round(float((told != video.objects)[certain].mean()), 4),
        "label_changes": len(changes),
        "label_changes_late": int((told[changes] != video.objects[changes]).sum()),
    }


def gate_auc(video: Seen) -> float | None:
    """How well the change to a picture of half a second ago tells that the objects are others."""
    lag = max(1, round(video.fps / 2))
    rows = [i for i in range(lag, len(video.sketches)) if video.certain[i] and video.certain[i - lag]]
    changes = np.array([change(video.sketches[i], video.sketches[i - lag]) for i in rows])
    other = np.array([video.objects[i] != video.objects[i - lag] for i in rows])
    auc = train.area_under_curve(changes, other)
    return None if auc is None else round(auc, 4)


def filters_of(cameras: list[Footage], seed: int) -> tuple[dict[str, train.TrainedFilter], dict[str, str]]:
    """A filter for every camera that allows one; why not for the others."""
    made, without = {}, {}
    for camera in cameras:
        try:
            made[camera.name] = train.train([camera], seed=seed, report=lambda _: None)
        except DataError as error:
            without[camera.name] = str(error)
            continue
        say(f"{camera.name}: {made[camera.name].score}")
    return made, without


def exits_of_signs(images: NDArray[np.uint8], interesting: NDArray[np.bool_]) -> dict[str, Any]:
    """How well the first exit of `signs` tells the same, by the probability that it gives to nothing."""
    found = bundle.load("signs")
    nothing = found.manifest.labels.index("nothing")
    rows = {}
    for width in (min(found.manifest.widths), max(found.manifest.widths)):
        logits = Shipped(found).head(images, width)[1][0]
        auc = train.area_under_curve(-softmax(logits)[:, nothing], interesting)
        flops = found.stage(0, width).flops
        rows[f"first exit, width {width:g}"] = {"auc": auc and round(auc, 4), "flops": flops}
    return rows


def chain(camera: Footage, video: Seen, trained: train.TrainedFilter) -> dict[str, Any]:
    """Gate, then filter, on the part that the filter was not made from: what is still sent, what is lost."""
    start = len(camera) - len(camera.parts()[2])
    certain, scores = video.certain[start:], train.scored(trained.network, camera.images[start:])
    passes = scores >= trained.threshold
    gate, kept_passes = Gate(GATE, AGE_S), np.zeros(len(passes), bool)
    sent = np.zeros(len(passes), bool)
    for i in range(len(passes)):
        now, sketch = i / video.fps, video.sketches[start + i]
        if kept := gate.repeated(sketch, now=now):
            kept_passes[i] = bool(kept.answer.label)
        else:
            sent[i] = kept_passes[i] = passes[i]
            gate.keep(Kept(sketch, now, answered(i, int(passes[i]), now), None))
    interesting = camera.interesting[start:] & certain

    def row(sends: NDArray[np.bool_], told: NDArray[np.bool_]) -> dict[str, float]:
        lost = (interesting & ~told).sum() / interesting.sum()
        return {"bytes_saved": round(1 - float(sends[certain].mean()), 4), "lost": round(float(lost), 4)}

    return {"frames": int(certain.sum()), "filter": row(passes, passes), "gate and filter": row(sent, kept_passes)}


def microseconds(call: Callable[[], object], repeats: int = 200) -> float:
    """Median of `repeats` single calls."""
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return round(float(np.median(spent)) * 1e6, 1)


def on_device(
    made: dict[str, train.TrainedFilter], cameras: dict[str, Footage], folder: Path, seed: int
) -> dict[str, Any]:
    """Export the filters of whole videos, run them as the agent does, and compare their decisions with torch's."""
    rows, manifest = {}, bundle.load("signs").manifest
    for name in INTEL:
        video = data_root() / "video" / "intel" / f"{name}.mp4"
        trained, camera = made[name], cameras[name]
        command = train.command([video], seed)
        written = train.write(folder / name, trained, name=name, made_by=command, images=camera.images[:4])
        neural_filter, picture = NeuralFilter(written, manifest), next(footage.frames(video))
        some = camera.images[:: max(1, len(camera) // 200)]
        torch_says = train.scored(trained.network, some) < written.manifest.threshold
        agree = float(np.mean([neural_filter(image)[0] == says for image, says in zip(some, torch_says, strict=True)]))
        rows[name] = {
            "flops": written.manifest.flops,
            "bytes_on_disk": written.path.stat().st_size,
            "agrees_with_torch": agree,
            "filter_us": microseconds(lambda neural_filter=neural_filter, picture=picture: neural_filter(picture)),
            "gate_us": microseconds(lambda p=picture: change(sketched(p), sketched(p))) / 2,
            "picture": list(picture.shape),
        }
    return rows


def drawing(report: dict[str, Any], made: dict[str, train.TrainedFilter], path: Path) -> None:
    """Left, what each filter's threshold trades; right, what the gate's does."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), dpi=110)
    for name, trained in made.items():
        positive, negative = np.sort(trained.scores[trained.interesting]), trained.scores[~trained.interesting]
        if not len(positive) or not len(negative):
            continue
        dismissed = [float((negative < t).mean()) for t in positive]
        lost = np.arange(len(positive)) / len(positive)
        (line,) = left.plot(100 * lost, 100 * np.array(dismissed), lw=1.4, label=name)
        score = trained.score
        left.plot(100 * (score.lost or 0), 100 * (score.dismissed or 0), "o", ms=6, color=line.get_color())
    left.axvline(1, color="#999999", lw=0.8, ls=":")
    left.set_xlim(-0.3, 12)
    left.set_xlabel("frames of interest lost, %")
    left.set_ylabel("empty frames dismissed, %")
    left.set_title("neural filter, on frames it never saw; ● the threshold it chose", loc="left", fontsize=10)
    left.legend(frameon=False, fontsize=7, loc="lower right")
    for name, rows in report["gate"].items():
        skipped, wrong = ([100 * r[key] for r in rows["thresholds"]] for key in ("skipped", "wrong"))
        right.plot(wrong, skipped, "o-", ms=4, lw=1.2, label=name)
    right.set_xlabel("frames answered with another count of objects than theirs, %")
    right.set_ylabel("frames skipped, %")
    thresholds = ", ".join(f"{t:g}" for t in THRESHOLDS)
    right.set_title(f"similar-frame gate, thresholds {thresholds}", loc="left", fontsize=10)
    right.legend(frameon=False, fontsize=7, loc="lower right")
    for axes in (left, right):
        axes.grid(lw=0.4, color="#cccccc")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/filter"))
    parser.add_argument(
        "--filters", type=Path, default=Path("filters"), help="where the filters of whole videos are put"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    intel = [data_root() / "video" / "intel" / f"{name}.mp4" for name in INTEL]
    videos = [seen(path) for path in (*intel, *(data_root() / "video" / "sbi" / f"{name}.mp4" for name in SBI))]
    videos.append(drive(arguments.seed))
    gate = {
        v.name: {"auc": gate_auc(v), "frames": len(v.sketches), "thresholds": [gate_score(v, t) for t in THRESHOLDS]}
        for v in videos
    }
    for name, row in gate.items():
        say(f"{name}: gate {next(r for r in row['thresholds'] if r['threshold'] == GATE)}")
    rendered = labelled.rendered_scenes(SCENES, seed=7)
    interesting = rendered.labels != scenes.LABELS.index("nothing")
    small = np.stack([squeezed(image, train.SIZE) for image in rendered.images])
    signs = Footage("signs", small, interesting, np.ones(SCENES, bool))
    cameras = [footage.load(path, train.SIZE) for path in intel]
    cameras += [zone for name in SBI for zone in zones(name)]
    made, without = filters_of([*cameras, signs], arguments.seed)
    by_name = {camera.name: camera for camera in cameras}
    held_out = slice(SCENES - len(signs.parts()[2]), None)
    report = {
        "seed": arguments.seed,
        "filter": {name: msgspec.to_builtins(t.score) for name, t in made.items()},
        "no_filter": without,
        "signs_by_its_first_exit": exits_of_signs(rendered.images[held_out], interesting[held_out]),
        "gate_age_s": AGE_S,
        "gate": gate,
        "gate_then_filter": {v.name: chain(by_name[v.name], v, made[v.name]) for v in videos if v.name in INTEL},
        "on_this_machine": on_device(made, by_name, arguments.filters, arguments.seed),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "filter.json").write_text(json.dumps(report, indent=1) + "\n")
    drawing(report, made, arguments.out / "filter.png")
    print(json.dumps({k: v for k, v in report.items() if k != "gate"}, indent=1))


if __name__ == "__main__":
    main()
