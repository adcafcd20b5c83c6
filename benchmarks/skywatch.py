"""What a detector's bundle finds in clips that neither trained nor fitted anything: exit and server, by width and step.

Average precision with the bundle's own files, the real codec and the bytes of the wire's messages; by class and by clip;
beside it the picture itself as WebP, answered by the whole network, tuned to WebP where a checkpoint is given. Writes
`skywatch.json` and `skywatch.png` into the folder and prints tables. `python benchmarks/skywatch.py --every 10`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")
from matplotlib import pyplot as plt

from isthmus.models import bundle
from isthmus.models.bundle import Bundle
from isthmus.models.data import clips
from isthmus.models.data.clips import BoxedFrames
from isthmus.models.detection import card, measuring
from isthmus.models.detection.judging import score
from isthmus.models.detection.measuring import Answered, Maps
from isthmus.models.detection.shipped import Shipped
from isthmus.models.pictures import data_root
from isthmus.proto.codec import Codec
from isthmus.proto.colours import OKABE_ITO
from isthmus.proto.messages import Layer
from isthmus.proto.tasks.box_score import BoxScore
from isthmus.proto.wire import to_device_pb

GRPC_BYTES, HTTP2_BYTES = 5, 9
"""In front of each message, and of each data frame that carries one."""
QUALITIES = (90, 70, 50, 30, 15, 5, 1)
TUNED_FROM, TUNED_TO = 1, 95


def framed(payload_bytes: int, layers: int = 1) -> int:
    """Bytes on a connection, below TLS, for payloads of so many bytes in all that go as so many messages."""
    message = Layer(frame_id=5000, layer=0, last=True, budget_s=0.08, payload=b"", crc=0xFFFFFFFF)
    around = (
        len(to_device_pb(message).SerializeToString()) + 4 + GRPC_BYTES + HTTP2_BYTES
    )  # 4: lengths and the payload's key
    return payload_bytes + layers * around


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bundle", default="skywatch")
    options.add_argument("--clips", type=Path, default=None, help="a folder of clips with boxes [the test clips]")
    options.add_argument("--every", type=int, default=10, help="of a clip's frames")
    options.add_argument("--checkpoint", type=Path, default=None, help="the training's; a copy of it is tuned to WebP")
    options.add_argument("--steps", type=int, default=300, help="of that tuning")
    options.add_argument(
        "--int8", action="store_true", help="also with the head quantised to int8, on the training's clips"
    )
    options.add_argument("--card", action="store_true", help="write the tables into the bundle's model card")
    options.add_argument("--out", type=Path, default=Path("docs/results/skywatch"))
    given = options.parse_args()
    found = bundle.load(given.bundle)
    m = found.manifest
    folder = given.clips or data_root() / "video" / "drone" / "test"
    frames = clips.decoded(clips.clips(folder), m.input.shape, given.every, m.labels)
    print(f"{len(frames)} frames of {len(frames.names)} clips")
    answers, layer_bytes = measuring.answered(Shipped(found), m.widths, found.codec, frames.images, print)
    result = measured(found, frames, answers, layer_bytes)
    result["webp"] = {"untuned": webp(Shipped(found), frames)}
    if given.int8:
        result["int8"] = int8(found, frames)
    if given.checkpoint is not None:
        result["webp"]["tuned"] = webp(tuned(given.checkpoint, given.steps), frames)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "skywatch.json").write_text(json.dumps(result, indent=1))
    plot(result, given.out / "skywatch.png")
    print(text := told(result))
    if given.card:
        card.write(found, text)
        plot(result, found.folder / "accuracy_bytes.png")


def measured(
    found: Bundle, frames: BoxedFrames, answers: Sequence[Answered], layer_bytes: NDArray[np.uint32]
) -> dict[str, Any]:
    m = found.manifest
    rows = []
    for a in answers:
        p = a.point
        size = 0.0
        if p.step is not None:
            payload = layer_bytes[:, m.widths.index(p.width), p.step, : p.layers].sum(1)
            size = float(np.mean([framed(int(n), p.layers) for n in payload]))
        flops = sum(s.flops for row in m.stages for s in row if s.width == p.width)
        step = None if p.step is None else m.bottleneck.steps[p.step] * (3 if p.layers == 1 else 1)
        row = {"width": p.width, "exit": p.exit is not None, "step": step, "layers": p.layers}
        rows.append({**row, "payload": p.bytes, "bytes": size, "mflop": flops / 1e6, **of(score(a.maps, frames))})
        rows[-1]["clips"] = by_clip(a.maps, frames)
    made = {"bundle": m.name, "files": m.files, "frames": len(frames), "made_by": m.made_by}
    return {**made, "points": rows}


def of(found: BoxScore) -> dict[str, Any]:
    table = asdict(found)
    return {**{k: table[k] for k in ("ap50", "agnostic50", "ap50_95")}, "by_class": dict(found.by_class)}


def by_clip(maps: Maps, frames: BoxedFrames) -> dict[str, float]:
    """AP50 of each clip alone, of the classes that it shows."""
    alone = {}
    for i, name in enumerate(frames.names):
        own = frames.of(np.arange(len(frames.names)) == i)
        alone[name] = round(score(maps[frames.clip == i], own).ap50, 4)
    return alone


def webp(halves: Any, frames: BoxedFrames) -> list[dict[str, Any]]:
    """The whole network, unrounded and at full width, on pictures that crossed as WebP files, headers and all."""
    rows = []
    for quality in QUALITIES:
        files = [
            cv2.imencode(".webp", image[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1] for image in frames.images
        ]
        seen = np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR)[:, :, ::-1] for file in files])
        features, _ = halves.head(seen, 1.0)
        size = float(np.mean([framed(len(file)) for file in files]))
        rows.append({"quality": quality, "bytes": size, **of(score(halves.tail(features), frames))})
    return rows


def tuned(checkpoint: Path, steps: int) -> Any:
    """A copy of the trained network, tuned at full width and without rounding to WebP of every quality."""
    import torch

    from isthmus.models.detection import losses, run
    from isthmus.models.detection.export import Trained
    from isthmus.models.detection.trainer import normalised
    from isthmus.models.detection.views import Views, targets
    from isthmus.models.training.processors import mixed_precision

    torch.set_num_threads(1)
    opened = run.open_run("skywatch")
    network, varied = run.load_best(checkpoint, opened.recipe).network, Views(opened.training)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=0.02)
    rng = np.random.default_rng(0)
    network.train()
    for step in range(steps):
        drawn = [varied.picture(rng) for _ in range(opened.recipe.batch)]
        images = np.stack([compressed(image, int(rng.integers(TUNED_FROM, TUNED_TO))) for image, _ in drawn])
        label, place = zip(*(targets(boxes, opened.recipe.arch.cells) for _, boxes in drawn), strict=True)
        wanted = torch.from_numpy(np.stack(label)), torch.from_numpy(np.stack(place))
        for group in optimiser.param_groups:
            group["lr"] = 3e-4 * (1 - step / steps)
        optimiser.zero_grad()
        with mixed_precision(torch.device("cpu")):
            features, _ = network.head(normalised(images), 1.0)
            loss = sum(losses.detection(answer, *wanted) for answer in network.tail(features.float()))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimiser.step()
    return Trained(network.eval())


def compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = cv2.imencode(".webp", image[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[:, :, ::-1])


def int8(found: Bundle, frames: BoxedFrames) -> list[dict[str, Any]]:
    """Exit and server at the second step's base, with an int8 head that was calibrated on clips of the training."""
    from isthmus.models.compression.quantize import HeadQuantiser, Options

    folder = data_root() / "video" / "drone" / "train"
    known = clips.decoded(clips.clips(folder)[::3], found.manifest.input.shape, 40, found.manifest.labels)
    head = HeadQuantiser(found, known.images[:128]).head(Options("channel", "min-max", 128, "nothing"))
    halves, codec, rows = Shipped(found, head), Codec(found.codec), []
    for width in found.manifest.widths:
        features, exits = halves.head(frames.images, width)
        decoded = np.stack([codec.decode(codec.encode(x, 1)[:1]) for x in features])
        rows.append(
            {"width": width, "exit": of(score(exits, frames)), "server": of(score(halves.tail(decoded), frames))}
        )
    return rows


def told(result: dict[str, Any]) -> str:
    """The tables as Markdown: sections of a model card."""
    labels = sorted(result["points"][0]["by_class"])
    lines = [
        f"## On {len(result['points'][0]['clips'])} clips that nothing was fitted on",
        "",
        f"`python benchmarks/skywatch.py`: {result['frames']} frames, AP50 over all of them, with the bundle's own files and the "
        "real codec. Bytes are those of the wire: payload, message, gRPC's and HTTP/2's framing, below TLS.",
        "",
        "![AP50 against bytes](accuracy_bytes.png)",
        "",
        f"| width | answer | bytes | AP50 | whatever the class | {' | '.join(labels)} |",
        "|" + "---|" * (5 + len(labels)),
    ]
    for p in result["points"]:
        answer = "exit" if p["exit"] else f"step {p['step']:.2g}, {p['layers']} layer(s)"
        classes = " | ".join(f"{p['by_class'][name]:.3f}" for name in labels)
        cells = f"{p['width']:g} | {answer} | {p['bytes']:.0f} | {p['ap50']:.3f} | {p['agnostic50']:.3f}"
        lines.append(f"| {cells} | {classes} |")
    if "int8" in result:
        lines += [
            "",
            "With the head in int8 (server: step 1.5, 1 layer):",
            "",
            "| width | exit | server |",
            "|---|---|---|",
        ]
        lines += [f"| {r['width']:g} | {r['exit']['ap50']:.3f} | {r['server']['ap50']:.3f} |" for r in result["int8"]]
    lines += ["", "The picture as WebP, answered by the whole network at full width, unrounded:", ""]
    lines += ["| network | quality | bytes | AP50 | whatever the class |", "|---|---|---|---|---|"]
    for kind, rows in result["webp"].items():
        for r in rows:
            lines.append(f"| {kind} | {r['quality']} | {r['bytes']:.0f} | {r['ap50']:.3f} | {r['agnostic50']:.3f} |")
    narrow, full = (next(p for p in result["points"] if p["width"] == w and p["exit"]) for w in (0.5, 1.0))
    sent = [
        next(p for p in result["points"] if p["width"] == w and p["layers"] == 1 and p["step"] > 1.4)
        for w in (0.5, 1.0)
    ]
    lines += ["", f"By clip, AP50 of each alone (server: step {sent[0]['step']:.2g}, 1 layer):", ""]
    lines += [
        "| clip | exit, width 0.5 | exit, width 1 | server, width 0.5 | server, width 1 |",
        "|---|---|---|---|---|",
    ]
    for name in narrow["clips"]:
        lines.append("| " + " | ".join([name, *(f"{p['clips'][name]:.3f}" for p in (narrow, full, *sent))]) + " |")
    return "\n".join([*lines, ""])


def plot(result: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 4.4), dpi=110)
    for width, colour in zip(sorted({p["width"] for p in result["points"]}), OKABE_ITO, strict=False):
        own = [p for p in result["points"] if p["width"] == width]
        sent = sorted((p["bytes"], p["ap50"]) for p in own if p["layers"] == 1)
        axes.plot(*zip(*sent, strict=True), "o-", ms=3.5, lw=1.2, color=colour, label=f"server, width {width:g}")
        axes.axhline(next(p["ap50"] for p in own if p["exit"]), ls=":", lw=1, color=colour)
    for (kind, rows), dash in zip(result["webp"].items(), ("--", "-"), strict=False):
        curve = sorted((row["bytes"], row["ap50"]) for row in rows)
        axes.plot(*zip(*curve, strict=True), dash, lw=1.2, color="#888888", label=f"WebP, whole network, {kind}")
    axes.set_xscale("log")
    axes.set_xlabel("bytes a frame, with the wire's framing (dotted: the exit alone, nothing sent)")
    axes.set_ylabel("AP50")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", lw=0.4, color="#cccccc")
    axes.set_title(f"{result['bundle']}: average precision against bytes sent", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
