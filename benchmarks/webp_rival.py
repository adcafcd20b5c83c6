"""Features against pictures: accuracy against bytes of `cifar10`, and of WebP and JPEG with a network tuned to them.

    python benchmarks/webp_rival.py [--steps 600] [--pictures 4000] [--out docs/results/webp]

The rival sends the picture itself, coded by WebP or JPEG, whole or first shrunk, and the edge server runs the whole
network on what it decodes. So that it is a fair one, that network is fine-tuned on coded pictures (and
the untouched one serves where it does better, as a server may choose by the quality and size it is sent): it starts from the
bundle's weights at full width, is not quantised, and learns from the labels and from what the untouched network
says of the undamaged picture; one network serves every size and quality, as one tail serves every width and step.
Sizes are those of whole files: no header is taken off. How many of the bytes are header is told beside.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models import bundle
from isthmus.models.data import labelled
from isthmus.models.training import losses
from isthmus.models.training.backbones import SplitNetwork
from isthmus.models.training.processors import mixed_precision
from isthmus.models.training.resumable import learning_rate
from isthmus.models.training.run import open_run
from isthmus.proto.errors import DataError

Images = NDArray[np.uint8]
BATCH, PEAK_RATE, SMOOTHING = 128, 0.003, 0.1
SIDE = 32
CPU = torch.device("cpu")
WEBP_HEADER = 30
"""RIFF and chunk headers (RFC 9649: 20 bytes), VP8 frame header (RFC 6386: 10 bytes)."""
KEYS = {"webp": (".webp", cv2.IMWRITE_WEBP_QUALITY), "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY)}


@dataclass(frozen=True)
class Way:
    """How a picture is sent: a format, the side it is shrunk to, a quality."""

    format: str
    side: int
    quality: int


WAYS = (
    *(Way("webp", 32, q) for q in (1, 20, 50, 80, 95)),
    *(Way("webp", 24, q) for q in (1, 30, 70)),
    *(Way("webp", 16, q) for q in (30,)),
    *(Way("jpeg", 32, q) for q in (50,)),
)


def coded(image: Images, way: Way) -> tuple[Images, bytes]:
    """A picture (32, 32, 3) RGB as it comes out of the decoder, and its file."""
    suffix, key = KEYS[way.format]
    small = image if way.side == SIDE else cv2.resize(image, (way.side, way.side), interpolation=cv2.INTER_AREA)
    file = cv2.imencode(suffix, small[:, :, ::-1], [key, way.quality])[1].tobytes()
    decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None  # its own encoder's file
    if way.side != SIDE:
        decoded = cv2.resize(decoded, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return decoded[:, :, ::-1].astype(np.uint8), file


def header_bytes(file: bytes, format_: str) -> int:
    """What of a file is not the picture: containers, tables, markers."""
    if format_ == "webp":
        return WEBP_HEADER
    scan = file.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(file[scan + 2 : scan + 4], "big") + 2  # the end marker too


def drawn(rng: np.random.Generator) -> Way:
    """A way to send one picture of training: mostly WebP of the whole picture, any quality."""
    format_ = "webp" if rng.random() < 0.8 else "jpeg"
    side = int(rng.choice((32, 24, 16), p=(0.6, 0.25, 0.15))) if format_ == "webp" else 32
    return Way(format_, side, int(rng.integers(1, 96)))


@torch.no_grad()
def answers(network: SplitNetwork, images: Images) -> Tensor:
    """Logits (N, 10) of the whole network at full width, unquantised, at the precision it is trained in."""
    network.eval()
    parts = []
    for i in range(0, len(images), 500):
        with mixed_precision(CPU):
            x = labelled.normalised(images[i : i + 500], labelled.CIFAR10_MEAN, labelled.CIFAR10_STD)
            parts.append(network.answer(x, 1.0).float())
    return torch.cat(parts)


def tuned(network: SplitNetwork, pictures: labelled.Pictures, steps: int, seed: int) -> None:
    """Fine-tune `network` on coded pictures, taught by what it said before."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    teacher = copy.deepcopy(network)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)
    began = time.monotonic()
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step / steps, PEAK_RATE)
        index = rng.choice(len(pictures), BATCH, replace=False)
        moved = labelled.shifted(pictures.images[index], 4, rng.random(BATCH) < 0.5, rng)
        seen = np.stack([coded(image, drawn(rng))[0] for image in moved])
        with mixed_precision(CPU):
            features, _ = network.head(labelled.normalised(seen, labelled.CIFAR10_MEAN, labelled.CIFAR10_STD), 1.0)
            logits = network.tail(features).float()
        loss = F.cross_entropy(logits, torch.from_numpy(pictures.labels[index]), label_smoothing=SMOOTHING)
        loss = loss + losses.distillation(logits, answers(teacher, moved))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        if step % 25 == 24:
            say(f"step {step + 1} of {steps}: loss {float(loss.detach()):.3f}, {time.monotonic() - began:.0f} s")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def sent(untouched: SplitNetwork, after: SplitNetwork, pictures: labelled.Pictures, way: Way) -> dict[str, Any]:
    """Bytes of one way over all pictures, and what each network makes of what is decoded; the better one counts."""
    decoded, files = zip(*(coded(image, way) for image in pictures.images), strict=True)
    images = np.stack(decoded)
    accuracies = [float((answers(n, images).argmax(1).numpy() == pictures.labels).mean()) for n in (untouched, after)]
    return {
        "format": way.format,
        "side": way.side,
        "quality": way.quality,
        "bytes": float(np.mean([len(file) for file in files])),
        "header_bytes": float(np.mean([header_bytes(file, way.format) for file in files])),
        "untouched": accuracies[0],
        "tuned": accuracies[1],
        "accuracy": max(accuracies),
    }


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (bytes, accuracy) that no other point beats in both, by bytes."""
    best, kept = -1.0, []
    for size, accuracy in sorted(points):
        if accuracy > best:
            best = accuracy
            kept.append((size, accuracy))
    return kept


def bytes_at(accuracy: float, curve: list[tuple[float, float]]) -> float | None:
    """Bytes at which a frontier reaches `accuracy`, linear between its points; None beyond its ends."""
    for (size, reached), (more, further) in itertools.pairwise(curve):
        if reached <= accuracy <= further:
            return size + (more - size) * (accuracy - reached) / (further - reached)
    return None


def compared(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], *, headers: bool) -> list[dict[str, Any]]:
    """For every point of our frontier, what WebP needs for as much."""
    coded_bytes = [
        (r["bytes"] - (0 if headers else r["header_bytes"]), r["accuracy"]) for r in theirs if r["format"] == "webp"
    ]
    rows = []
    for size, accuracy in frontier([(p["bytes"], p["accuracy"]) for p in ours]):
        rival = bytes_at(accuracy, frontier(coded_bytes))
        ratio = None if rival is None else round(rival / size, 2)
        rows.append({"accuracy": accuracy, "bytes": size, "webp_bytes": rival and round(rival, 1), "ratio": ratio})
    return rows


def drawing(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against bytes of the features, of WebP at each side, and of JPEG."""
    figure, axes = plt.subplots(figsize=(7.4, 4.4), dpi=110)
    curve = frontier([(p["bytes"], p["accuracy"]) for p in ours])
    axes.plot([b for b, _ in curve], [100 * a for _, a in curve], "o-", color="#0072b2", label="features of cifar10")
    kinds = (("webp", 32, "#d55e00"), ("webp", 24, "#e69f00"), ("webp", 16, "#9c5f00"), ("jpeg", 32, "#6b6b6b"))
    for format_, side, colour in kinds:
        rows = [r for r in theirs if (r["format"], r["side"]) == (format_, side)]
        label = f"{'WebP' if format_ == 'webp' else 'JPEG'}, {side} x {side}"
        axes.plot(
            [r["bytes"] for r in rows], [100 * r["accuracy"] for r in rows], "s-", ms=4, color=colour, label=label
        )
    axes.set_xscale("log")
    axes.set_xlabel("bytes a picture, whole files")
    axes.set_ylabel("accuracy, %")
    axes.grid(lw=0.4, color="#cccccc", which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    axes.set_title("cifar10: features against pictures, each with a network tuned to it", loc="left", fontsize=11)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="cifar10", help="whose operating points are compared")
    parser.add_argument("--steps", type=int, default=600, help=f"of fine-tuning, {BATCH} pictures each")
    parser.add_argument("--pictures", type=int, default=4000, help="of the test set, the same for both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rival", type=Path, default=Path("checkpoints/webp_rival.pt"), help="made once, then read")
    parser.add_argument("--out", type=Path, default=Path("docs/results/webp"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shipped = bundle.load(arguments.bundle)
    manifest, outcomes, whole = shipped.manifest, shipped.outcomes(), labelled.cifar10("test")
    network = open_run("cifar10").begun_with(shipped).eval()
    untouched = copy.deepcopy(network)
    n = min(arguments.pictures, len(outcomes.truth))
    test = labelled.Pictures(whole.images[:n], whole.labels[:n])
    if (outcomes.truth[:n] != test.labels).any():
        raise DataError(f"{arguments.bundle}: its outcome table is not of these pictures; export the bundle again")
    right = (outcomes.label == outcomes.truth[:, None])[:n].mean(axis=0)  # (P,)
    before = float((answers(network, test.images).argmax(1).numpy() == test.labels).mean())
    say(f"{arguments.bundle}: {before:.2%} whole and unquantised")
    if arguments.rival.is_file():
        network.load_state_dict(torch.load(arguments.rival, weights_only=True))
    else:
        tuned(network, labelled.cifar10("train"), arguments.steps, arguments.seed)
        arguments.rival.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), arguments.rival)
    theirs = []
    for way in WAYS:
        theirs.append(sent(untouched, network, test, way))
        say(json.dumps(theirs[-1]))
    ours = [
        {"width": p.width, "step": p.step, "layers": p.layers, "bytes": p.bytes, "accuracy": float(right[i])}
        for i, p in enumerate(manifest.points)
        if p.exit is None
    ]
    report = {
        "bundle": manifest.name,
        "made_by": manifest.made_by,
        "tuned": {"steps": arguments.steps, "seed": arguments.seed},
        "pictures": len(test),
        "unquantised": before,
        "features": ours,
        "pictures_sent": theirs,
        "whole_files": compared(ours, theirs, headers=True),
        "headers_taken_off": compared(ours, theirs, headers=False),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    drawing(ours, theirs, arguments.out / "webp_rival.png")
    (arguments.out / "webp_rival.json").write_text(json.dumps(report, indent=1) + "\n")
    print(
        json.dumps({"whole_files": report["whole_files"], "headers_taken_off": report["headers_taken_off"]}, indent=1)
    )


if __name__ == "__main__":
    main()
