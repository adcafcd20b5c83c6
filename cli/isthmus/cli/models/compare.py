"""`isthmus models compare`: what bundles and plain pictures are worth for their bytes, and who is best at which uplink."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import typer
from numpy.typing import NDArray

from isthmus.cli.models.halves import Halves, unsure
from isthmus.cli.models.sights import QUALITIES, quality_ladder
from isthmus.cli.options import FORMAT, Format, require, seconds
from isthmus.emulation.reports.contenders import Contender, Stretch, Way, led, stretches
from isthmus.models import bundle, pictures, profiles, work
from isthmus.models.bundle import Bundle, Manifest, Point
from isthmus.models.picture_ladder import Input
from isthmus.models.pictures import placing, sendable
from isthmus.models.profiles import Profile
from isthmus.proto import picture_codec
from isthmus.proto.codec import HEADER_BYTES
from isthmus.proto.errors import ConfigError
from isthmus.proto.picture_codec import Pixels
from isthmus.proto.vocabulary import Guess

if TYPE_CHECKING:
    from isthmus.models.data.truth import Told

PictureFormat = Literal["webp", "jpeg"]
NAMES: dict[PictureFormat, str] = {"webp": "WebP", "jpeg": "JPEG"}
Score = Callable[[Sequence[Guess | None], Sequence[str]], float]
"""Results 0 to 1 of answers to every picture, classes called as in these labels."""


def compare(
    names: list[str] = typer.Argument(
        help="Bundles: of the zoo, or folders. The first one's whole model is given the pictures."
    ),
    shown: Path = typer.Option(
        ..., "--pictures", help="Your own pictures: a folder; without labels a zip archive too."
    ),
    labels: Path | None = typer.Option(
        None,
        help="What is right: a COCO-style .json, a .csv of file,class (or file,mask), a folder of masks [agreement].",
    ),
    device: str = typer.Option("pi4", help="Profile of the device."),
    server: str = typer.Option("edge-server", help="Profile of the server."),
    deadline: str = typer.Option("400ms", help="From picture to answer, at most."),
    rtt: str = typer.Option("20ms", help="The link's round trip."),
    most: int = typer.Option(200, "--samples", help="Use at most so many pictures, spread evenly.", min=4),
    qualities: str = QUALITIES,
    out: Path | None = typer.Option(None, help="Write compare.json, compare.svg and compare.png into this folder."),
    format_: Format = FORMAT,
) -> None:
    """Result against bytes of bundles, WebP and JPEG on your own pictures, and the uplinks at which each is best."""
    require("server", "emulation")
    limits = Limits(
        profiles.load(device),
        profiles.load(server),
        seconds(deadline, "--deadline") or 0.0,
        seconds(rtt, "--rtt") or 0.0,
    )
    found = [bundle.load(name) for name in names]
    ladder = quality_ladder(qualities)
    _check(found)
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is a file; name a folder")
    kit = _Kit.of(found, shown, labels, most)
    contenders = [_bundle(one, name, kit, limits) for one, name in zip(found, _called(found), strict=True)]
    contenders += [_pictures(found[0], format_name, ladder, kit, limits) for format_name in get_args(PictureFormat)]
    best = stretches(contenders, limits.deadline_s, limits.rtt_s)
    facts = _facts(kit, contenders, best, limits, device, deadline)
    if out is not None:
        _save(out, facts, contenders, best, kit, limits)
    if format_ == "json":
        typer.echo(json.dumps(facts))
        return
    _tell(contenders, best, kit, facts)


@dataclass(frozen=True)
class Limits:
    """Machines, link and deadline that are compared for."""

    device: Profile
    server: Profile
    deadline_s: float
    rtt_s: float


@dataclass(frozen=True)
class _Kit:
    """The pictures, and how answers to them are scored."""

    pictures: tuple[Pixels, ...]
    measure: str
    score: Score
    labelled: bool

    @classmethod
    def of(cls, found: Sequence[Bundle], shown: Path, labels: Path | None, most: int) -> _Kit:
        """Read pictures and labels; without labels, right is what the first bundle's whole model answers."""
        from isthmus.models.bundling import judging

        first = found[0].manifest
        if labels is not None:
            from isthmus.models.data import truth

            measure = judging.measure_of(first.task)
            told = truth.told(labels, shown, most)
            images = tuple(each.pixels() for each in told)
            return cls(images, measure, _scoring(measure, told, images), labelled=True)
        images = tuple(pictures.samples(shown, most))
        halves = Halves(found[0], first)
        right = [halves.whole(pixels) for pixels in images]
        return cls(
            images, "agreement", lambda answers, _: judging.agreement(first.answers, answers, right), labelled=False
        )

    def halves(self, one: Bundle) -> Halves:
        """The halves of a bundle, as these pictures' measure needs them."""
        return Halves(one, unsure(one.manifest) if self.measure == "AP50" else one.manifest)


def _scoring(measure: str, told: Sequence[Told], images: Sequence[Pixels]) -> Score:
    from isthmus.models.bundling import judging

    truths, shapes = [each.truth for each in told], [(image.shape[0], image.shape[1]) for image in images]
    return lambda answers, labels: judging.score(measure, answers, truths, labels, shapes)


def _check(found: Sequence[Bundle]) -> None:
    kinds = {one.manifest.task.removesuffix("-probabilities") for one in found}
    if len(kinds) > 1:
        raise ConfigError(f"{' and '.join(sorted(kinds))}: bundles of one kind of answers can be compared")


def _called(found: Sequence[Bundle]) -> list[str]:
    """A name for each bundle; where two have the same, their folders too."""
    names = [one.manifest.name for one in found]
    return [
        n if names.count(n) == 1 else f"{n} ({one.folder.parent.name})" for n, one in zip(names, found, strict=True)
    ]


def _bundle(one: Bundle, name: str, kit: _Kit, limits: Limits) -> Contender:
    """Every operating point that its own validation did not find beaten."""
    m, halves = one.manifest, kit.halves(one)
    points = _promising(m)
    answers: list[list[Guess | None]] = [[] for _ in points]
    sizes = np.zeros(len(points))
    for pixels in kit.pictures:
        for i, (guess, size_bytes) in enumerate(halves.answers(pixels, points)):
            answers[i].append(guess)
            sizes[i] += size_bytes / len(kit.pictures)
    ways = []
    for point, said, size in zip(points, answers, sizes.tolist(), strict=True):
        result = kit.score(said, m.labels)
        ways.append(Way(_point_name(one, point), size, result, *_seconds(one, point, limits)))
        typer.echo(f"{name}: {ways[-1].name}: {size:,.0f} bytes, {kit.measure} {result:.4f}", err=True)
    return Contender(name, tuple(ways))


def _promising(m: Manifest) -> list[Point]:
    """The points that none of their kind (exit, features, picture) beats in both: pictures need no head, and are no rivals."""

    def kind(p: Point) -> tuple[bool, bool]:
        return p.step is None, p.step is not None and p.step >= len(m.bottleneck.steps)

    def beats(q: Point, p: Point) -> bool:
        better = q.bytes <= p.bytes and q.accuracy >= p.accuracy and (q.bytes, q.accuracy) != (p.bytes, p.accuracy)
        return better and kind(q) == kind(p)

    return [p for p in m.points if not any(beats(q, p) for q in m.points)]


def _point_name(one: Bundle, point: Point) -> str:
    m = one.manifest
    width = f"width {point.width:g}, " if len(m.widths) > 1 else ""
    if point.step is None:
        return (
            f"{width}device alone"
            if len([s for s in m.stages if s[0].exit]) < 2
            else f"{width}exit {(point.exit or 0) + 1}"
        )
    if point.step >= len(m.bottleneck.steps):
        return m.step_name(point.step)
    return f"{width}step {m.step_name(point.step)}, {point.layers} layer{'s' if point.layers > 1 else ''}"


def _seconds(one: Bundle, point: Point, limits: Limits) -> tuple[float, float]:
    """On the device and on the server, by their profiles."""
    m = one.manifest
    times = work.stage_times(limits.device, one)
    w = sorted(m.widths).index(point.width)
    picture = point.step is not None and point.step >= len(m.bottleneck.steps)
    last = point.exit if point.exit is not None else (m.picture_stage if picture else len(m.stages) - 1)
    device_s = sum(row[w] for row in times[: last + 1])
    if point.step is None:
        return device_s, 0.0
    if picture:
        assert m.picture is not None
        return device_s + work.coding_s(limits.device, one), limits.server.tail_s(m.picture.flops)
    return device_s, limits.server.tail_s(m.tail_flops)


def _pictures(one: Bundle, format_: PictureFormat, ladder: Sequence[int], kit: _Kit, limits: Limits) -> Contender:
    """The picture itself, sent to the whole model behind `one`: no model on the device, whole files as they are sent."""
    m, halves = one.manifest, kit.halves(one)
    taken, flops = _whole(one)
    shape = taken.shape
    config = picture_codec.PictureConfig(*shape, format_, tuple(ladder), ((0.0, 0.0, 0.0),) * len(ladder))
    device_s = work.resizing_s(limits.device, shape) + work.coding_of(limits.device, shape, format_)
    small = [sendable(pixels, taken) for pixels in kit.pictures]
    ways = []
    for quality, value in enumerate(ladder):
        files = [picture_codec.encode(pixels, config, quality) for pixels in small]
        said = [
            _outward(halves.whole(picture_codec.decode(f, config)), p, taken)
            for f, p in zip(files, kit.pictures, strict=True)
        ]
        size, result = HEADER_BYTES + float(np.mean([len(file) for file in files])), kit.score(said, m.labels)
        ways.append(Way(f"quality {value}", size, result, device_s, limits.server.tail_s(flops)))
        typer.echo(f"{NAMES[format_]} {value}: {size:,.0f} bytes, {kit.measure} {result:.4f}", err=True)
    return Contender(NAMES[format_], tuple(ways))


def _outward(guess: Guess | None, pixels: NDArray[Any], taken: Input) -> Guess | None:
    return None if guess is None else placing(pixels.shape, taken).outward(guess)


def _whole(one: Bundle) -> tuple[Input, int]:
    """What the whole model behind a bundle takes, and its FLOPs."""
    m = one.manifest
    if m.picture is not None:
        return m.picture.input, m.picture.flops
    widest = max(m.widths)
    head = sum(s.flops for stage in m.stages for s in stage if s.width == widest and s.input is None)
    return m.input, head + m.tail_flops


def _facts(
    kit: _Kit, contenders: Sequence[Contender], best: Sequence[Stretch], limits: Limits, device: str, deadline: str
) -> dict[str, Any]:
    def upper(rate_Bps: float) -> float | None:
        return None if math.isinf(rate_Bps) else rate_Bps

    return {
        "made_by": shlex.join(["isthmus", *sys.argv[1:]]),
        "pictures": len(kit.pictures),
        "measure": kit.measure,
        "device": limits.device.name,
        "server": limits.server.name,
        "deadline_s": limits.deadline_s,
        "rtt_s": limits.rtt_s,
        "contenders": [{"name": c.name, "ways": [asdict(way) for way in c.ways]} for c in contenders],
        "best": [
            {"from_Bps": s.from_Bps, "to_Bps": upper(s.to_Bps), "contender": s.contender, **asdict(s.way)} for s in best
        ],
    }


def _save(
    out: Path,
    facts: dict[str, Any],
    contenders: Sequence[Contender],
    best: Sequence[Stretch],
    kit: _Kit,
    limits: Limits,
) -> None:
    from isthmus.emulation.reports import contender_plots, figure_style

    conditions = f"{limits.device.name}, answered within {limits.deadline_s * 1000:g} ms"
    seen = contender_plots.Shown(tuple(contenders), tuple(best), kit.measure, conditions)
    plot = contender_plots.plot(seen, f"{kit.measure} against bytes")
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps(facts, indent=1) + "\n")
    (out / "compare.svg").write_text(figure_style.standalone(plot))
    (out / "compare.png").write_bytes(plot.files["png"])


def _tell(contenders: Sequence[Contender], best: Sequence[Stretch], kit: _Kit, facts: dict[str, Any]) -> None:
    from isthmus.emulation.reports.contender_plots import rate_in_words

    typer.echo(f"{len(kit.pictures):,} pictures\n\n{'':<26}{'':<28}{'bytes':>8} {kit.measure:>10}")
    for contender in contenders:
        for n, way in enumerate(contender.frontier):
            name = contender.name if not n else ""
            typer.echo(f"{name:<26}{way.name:<28}{way.size_bytes:>8,.0f} {way.result:>10.4f}")
    deadline_ms = facts["deadline_s"] * 1000
    typer.echo(f"\nbest on {facts['device']} within {deadline_ms:g} ms, by uplink:")
    for each in led(best):
        upper = "and more" if math.isinf(each.to_Bps) else f"to {rate_in_words(each.to_Bps)}"
        span = f"{rate_in_words(each.from_Bps)} {upper}"
        typer.echo(f"  {span:<32}{each.contender}, up to {kit.measure} {each.way.result:.4f} ({each.way.name})")
    if not best:
        typer.echo("  nothing is in time on any uplink; a later deadline, or a quicker device")
