"""A detector's model card: what it is, how it was made, what its points are worth on the places held out, and further parts."""

from __future__ import annotations

from isthmus.models.bundle import Bundle, Manifest

FILE = "MODEL_CARD.md"


def write(bundle: Bundle, further: str = "") -> None:
    """Write `MODEL_CARD.md` into the bundle's folder; `further` are sections behind what the bundle itself tells."""
    (bundle.folder / FILE).write_text("\n".join([*_lines(bundle.manifest), *filter(None, (further,))]))


def _lines(m: Manifest) -> list[str]:
    b, (height, width) = m.bottleneck, m.input.shape
    lines = [
        f"# {m.name}",
        "",
        f"Detection of {', '.join(m.labels)}, input {width} × {height} RGB. Bottleneck {b.height} × {b.width} × {b.channels}.",
        "The exit gives boxes on the device; the server's answer fuses two branches of the tail, of which one is as small as "
        "the exit: the mean of their class logits, the wide one's box.",
        "",
        f"Made by `{m.made_by}`.",
        "",
        "| width | head MFLOP, with its exit |",
        "|---|---|",
        *(f"| {stage.width:g} | {stage.flops / 1e6:.1f} |" for stage in m.stages[0]),
        "",
        f"The tail takes {m.tail_flops / 1e6:.1f} MFLOP a frame.",
        "",
        "## On the places held out",
        "",
        "They stopped the training, and codec, least score and the table of outcomes were fitted on them: these figures are for "
        "the scheduler, not for judging. Agreement is F1 of a frame's boxes with the truth: class right and overlap of a half. "
        "A step is the base layer's where it comes alone.",
        "",
        "| width | answer | payload bytes | agreement % |",
        "|---|---|---|---|",
    ]
    for p in m.points:
        answer = (
            "exit"
            if p.step is None
            else f"step {b.steps[p.step] * (3 if p.layers == 1 else 1):.2g}, {p.layers} layer(s)"
        )
        lines.append(f"| {p.width:g} | {answer} | {p.bytes:.0f} | {100 * p.accuracy:.1f} |")
    return [*lines, ""]
