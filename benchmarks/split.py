"""Cutting real models: exactness at every cut, and what crossing bytes buy without training. Prints JSON.

    python benchmarks/split.py exact [MODEL.tflite ...]       head after tail against the uncut model, bit for bit, at every cut
    python benchmarks/split.py imagenet [--cuts 23,27,49]     MobileNetV2 on Caltech pictures of ImageNet's classes
    python benchmarks/split.py cifar [--cuts 7,11]            both ResNet-8 on CIFAR-10, against labels
    python benchmarks/split.py masks [--cuts 68]              DeepLab against its own uncut masks

Tables and temperatures are fitted on training pictures, figures are of test pictures.
Models default to those under the data folder (`ISTHMUS_DATA`).
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import zipfile
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from isthmus.models import flatbuffer
from isthmus.models.data import labelled
from isthmus.models.flatbuffer import Graph
from isthmus.models.pictures import data_root, samples
from isthmus.models.splitting import split as splits
from isthmus.models.splitting.cuts import Cut, cut_after, cut_files, cuts
from isthmus.models.splitting.split import Split
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.tasks.segmentation import overlap
from isthmus.proto.vocabulary import Guess

Array = NDArray[Any]


def exact(path: Path) -> dict[str, object]:
    graph = flatbuffer.read(path)
    pictures = [stored(graph, picture) for picture in samples(data_root() / "models" / "samples", 3)]
    found = cuts(graph)
    expected = [uncut(graph, x) for x in pictures]
    cut_points = [cut for cut in found if not cut.obstacle]
    wrong = [cut.after for cut in cut_points if not equal(graph, cut_files(graph, cut), pictures, expected)]
    return {
        "model": path.name,
        "operators": len(graph.operators),
        "mflop": round(graph.flops / 1e6, 1),
        "cuts": len(cut_points),
        "cuts_across_several_tensors": sum(len(cut.crossing) > 1 for cut in cut_points),
        "no_cut": {cut.after: cut.obstacle for cut in found if cut.obstacle},
        "exact": len(cut_points) - len(wrong),
        "different_after": wrong,
    }


def uncut(graph: Graph, x: Array) -> list[Array]:
    interpreter = Interpreter(str(graph.path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def equal(graph: Graph, files: tuple[bytes, bytes], pictures: list[Array], expected: list[list[Array]]) -> bool:
    head, tail = (Interpreter(model_content=file, num_threads=1) for file in files)
    first, rest = head.get_signature_runner("head"), tail.get_signature_runner("tail")
    for x, want in zip(pictures, expected, strict=True):
        out: Mapping[str, Array] = rest(**first(image=x))
        if not all(np.array_equal(out[f"output{i}"], w) for i, w in enumerate(want)):
            return False
    return True


def stored(graph: Graph, picture: Array) -> Array:
    """A picture as the model's input stores it; floats from 0 to 1."""
    tensor = graph.tensors[graph.inputs[0]]
    x = cv2.resize(picture, (tensor.shape[2], tensor.shape[1]), interpolation=cv2.INTER_AREA)[None]
    if tensor.dtype == "float32":
        return (x / 255).astype(np.float32)
    return (x.astype(np.int16) - 128).astype(np.int8) if tensor.dtype == "int8" else x


def caltech(classes: Collection[str], split: str, most: int) -> list[Array]:
    """Pictures of these classes, spread evenly over all there are."""
    root = data_root() / "caltech101"
    with (root / "index.csv").open() as lines:
        files = [r["file"] for r in csv.DictReader(lines) if r["split"] == split and r["class"] in classes]
    chosen = [files[i * len(files) // most] for i in range(most)] if len(files) > most else files
    with zipfile.ZipFile(root / "images.zip") as archive:
        raw = [archive.read(file) for file in chosen]
    return [cv2.imdecode(np.frombuffer(r, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1] for r in raw]


def imagenet(chosen: list[int] | None) -> dict[str, object]:
    """Agreement of `mobilenet_v2_1.0_224_quant` with itself, uncut, in at most 4 kB."""
    with (data_root() / "caltech101" / "imagenet_map.csv").open() as lines:
        classes = {row["class"] for row in csv.DictReader(lines)}
    known, unseen = caltech(classes, "train", 372), caltech(classes, "test", 10_000)
    graph = flatbuffer.read(data_root() / "models" / "mobilenet_v2_1.0_224_quant.tflite")
    whole = uncut_of(graph, [*known, *unseen], len(known))
    rows = [row(splits.measured(whole, cut), 4000) for cut in candidates(whole, chosen, 5000)]
    return {"pictures": len(unseen), "max_bytes": 4000, "cuts": rows}


def cifar(chosen: list[int] | None) -> dict[str, object]:
    """Accuracy lost by both ResNet-8 at one bit for each value, against labels."""
    known, unseen = labelled.cifar10("train"), labelled.cifar10("test")
    out: dict[str, object] = {"pictures": 1000}
    for name in ("cifar10_resnet8_f32", "cifar10_resnet8_int8"):
        graph = flatbuffer.read(data_root() / "models" / f"{name}.tflite")
        pictures = [*known.images[:500], *unseen.images[:1000]]
        whole = uncut_of(graph, pictures, 500, pixels="0..255" if name.endswith("f32") else None)
        labels = unseen.labels[:1000]
        before = float(np.mean([g.label for g in whole.guesses()[500:]] == labels))
        rows = []
        for cut in [c for c in cuts(graph) if (c.after in chosen if chosen else c.head_flops < 0.999 * graph.flops)]:
            split = splits.measured(whole, cut)
            values = sum(t.elements for t in cut.crossing)
            points = [a for a in split.answered if 8 * a.point.bytes <= values]
            kept = max(points, key=lambda a: a.point.accuracy, default=None)
            found = {"after": cut.after, "values": values, "head_share": round(cut.head_flops / graph.flops, 3)}
            if kept is not None:
                right = float(np.mean([g.label for g in kept.guesses] == labels))
                found |= {"bytes": kept.point.bytes, "bits_per_value": round(8 * kept.point.bytes / values, 3)}
                found |= {"agreement": kept.point.accuracy, "points_lost": round(100 * (before - right), 2)}
            rows.append(found)
        out[name] = {"uncut_accuracy": before, "cuts": rows}
    return out


VOC_LIKE = (
    *(
        "airplanes",
        "Motorbikes",
        "chair",
        "windsor_chair",
        "Faces",
        "car_side",
        "ferry",
        "dalmatian",
        "wild_cat",
        "pigeon",
    ),
    *("rooster", "flamingo", "ibis", "emu", "cougar_body", "sunflower"),
)
"""Caltech classes that DeepLab's twenty may find something in, and one where it should not."""


def masks(chosen: list[int] | None) -> dict[str, object]:
    """DeepLab's masks against its own uncut ones, in at most 8 kB: the mean over pictures, and over classes."""
    known = caltech(VOC_LIKE, "train", 32)
    unseen = [*samples(data_root() / "models" / "samples", 100), *caltech(VOC_LIKE, "test", 64)]
    graph = flatbuffer.read(data_root() / "models" / "deeplabv3_mnv2_dm05_pascal_quant.tflite")
    whole = uncut_of(graph, [*known, *unseen], len(known))
    rows = []
    for cut in [cut_after(graph, after) for after in chosen or [68]]:
        split = splits.measured(whole, cut)
        found = row(split, 8000)
        best = max((a for a in split.answered if a.point.bytes <= 8000), key=lambda a: a.point.accuracy)
        rows.append(found | {"mean_iou_over_classes": round(by_class(best.guesses, split.truth), 4)})
    return {"pictures": len(unseen), "max_bytes": 8000, "cuts": rows}


def by_class(guesses: Sequence[Guess], truth: Sequence[Guess]) -> float:
    """Mean over classes of intersection over union, pixels of all pictures together."""
    pixels: dict[int, NDArray[np.int64]] = {}
    for told, true in zip(guesses, truth, strict=True):
        for label, both in overlap(told, true).items():
            pixels[label] = pixels.get(label, np.zeros(2, np.int64)) + both
    return float(np.mean([shared / either for shared, either in pixels.values()]))


def uncut_of(graph: Graph, pictures: Sequence[Array], fit_first: int, pixels: str | None = None) -> Uncut:
    return Uncut.of(graph, input_of(graph, pixels), None, pictures, fit_first=fit_first)


def candidates(whole: Uncut, chosen: list[int] | None, max_bytes: float) -> list[Cut]:
    """The cuts asked for, or those that send about so little at the nominal step, earliest first."""
    if chosen:
        return [cut_after(whole.graph, after) for after in chosen]
    return [p.cut for p in splits.listed(whole) if p.coded_bytes is not None and p.coded_bytes <= max_bytes]


def row(split: Split, max_bytes: float) -> dict[str, object]:
    """What a cut answers in at most so many bytes."""
    points = [a.point for a in split.answered]
    kept = max((p for p in points if p.bytes <= max_bytes), key=lambda p: p.accuracy, default=None)
    return {
        "after": split.cut.after,
        "crosses": [t.shape[1:] for t in split.cut.crossing],
        "head_share": round(split.cut.head_flops / split.uncut.graph.flops, 3),
        "best": kept and {"step": kept.step, "layers": kept.layers, "bytes": kept.bytes, "agreement": kept.accuracy},
        "points": [(p.step, p.layers, p.bytes, p.accuracy) for p in points],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["exact", "imagenet", "cifar", "masks"])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--cuts", help="Operators to cut after, separated by commas.")
    options = parser.parse_args()
    chosen = [int(after) for after in options.cuts.split(",")] if options.cuts else None
    versions = {"litert": metadata.version("ai-edge-litert"), "machine": platform.machine()}
    if options.what == "exact":
        found = {
            "models": [exact(path) for path in options.models or sorted((data_root() / "models").glob("*.tflite"))]
        }
    else:
        found = {"imagenet": imagenet, "cifar": cifar, "masks": masks}[options.what](chosen)
    print(json.dumps(versions | found, indent=1))


if __name__ == "__main__":
    main()
