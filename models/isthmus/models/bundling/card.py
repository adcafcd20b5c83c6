"""A bundle's model card: what it is, what it reached, how it was made; with the plot of accuracy against bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from isthmus.models.bundle import Bundle, Manifest
from isthmus.models.bundling.evaluate import Evaluation
from isthmus.proto.colours import OKABE_ITO


def write(bundle: Bundle, evaluation: Evaluation, *, remark: str) -> None:
    """Write `MODEL_CARD.md` and `accuracy_bytes.png` into the bundle's folder; `remark`: sentences on how it was made."""
    _plot(bundle.manifest, bundle.folder / "accuracy_bytes.png")
    (bundle.folder / "MODEL_CARD.md").write_text(_text(bundle.manifest, evaluation, remark))


def _text(m: Manifest, evaluation: Evaluation, remark: str) -> str:
    n = len(evaluation.outcomes.truth)
    lines = [
        f"# {m.name}",
        "",
        f"{m.task.capitalize()}, {len(m.labels)} classes, input {m.input.size} × {m.input.size} RGB. "
        f"Bottleneck {m.bottleneck.height} × {m.bottleneck.width} × {m.bottleneck.channels}.",
        "",
        f"Made by `{m.made_by}`.",
        f"Measured on {n:,} validation pictures that were not trained on; temperatures and conditional accuracies were "
        f"fitted on one half of them, calibration errors (ECE, 15 bins) are of the other half. {remark}",
        *(["Accuracy is agreement with the uncut model's answers."] if m.reference == "uncut" else []),
        "",
        "![accuracy against bytes](accuracy_bytes.png)",
        "",
        "| width | head MFLOP | " + " | ".join(f"exit {i + 1} %" for i in range(len(m.stages))) + " | unquantised % |",
        "|" + "---|" * (3 + len(m.stages)),
    ]
    for i, width in enumerate(m.widths):
        exits = [p.accuracy for p in m.points if p.width == width and p.exit is not None]
        flops = sum(stage[i].flops for stage in m.stages)
        cells = [f"{width}", f"{flops / 1e6:.1f}", *(f"{100 * a:.2f}" for a in exits)]
        lines.append("| " + " | ".join([*cells, f"{100 * evaluation.unquantised[i]:.2f}"]) + " |")
    lines += [
        "",
        f"The tail takes {m.tail_flops / 1e6:.1f} MFLOP a frame. Offloaded, by quantiser step and layers sent:",
        "",
        "| width | step | layers | bytes | accuracy % | ECE |",
        "|---|---|---|---|---|---|",
    ]
    for p, error in zip(m.points, evaluation.calibration_error, strict=True):
        if p.exit is None and p.step is not None:
            step = m.bottleneck.steps[p.step]
            lines.append(f"| {p.width} | {step} | {p.layers} | {p.bytes:.0f} | {100 * p.accuracy:.2f} | {error:.3f} |")
    worst = max(error for p, error in zip(m.points, evaluation.calibration_error, strict=True) if p.exit is not None)
    return "\n".join([*lines, "", f"Largest ECE of an exit: {worst:.3f}.", ""])


def _plot(m: Manifest, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=110)
    for width, colour in zip(m.widths, OKABE_ITO, strict=False):
        sent = sorted((p.bytes, p.accuracy) for p in m.points if p.width == width and p.exit is None)
        shares = [100 * a for _, a in sent]
        axes.plot([b for b, _ in sent], shares, "o-", ms=3.5, lw=1.2, color=colour, label=f"width {width}")
        last = [p.accuracy for p in m.points if p.width == width and p.exit is not None][-1]
        axes.plot(0, 100 * last, "D", ms=5, color=colour)
    axes.plot([], [], "D", ms=5, color="#888888", label="last exit, nothing sent")
    axes.set_xlabel("bytes a frame")
    axes.set_ylabel("agreement with the uncut model, %" if m.reference == "uncut" else "accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", lw=0.4, color="#cccccc")
    word = "agreement" if m.reference == "uncut" else "accuracy"
    axes.set_title(f"{m.name}: {word} against bytes sent", loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
