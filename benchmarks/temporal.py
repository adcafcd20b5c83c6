"""Time in the codec: bytes of whole frames and of deltas on clips, by step, by what is kept, by lag; and what they are worth.

    python benchmarks/temporal.py BUNDLE CLIP … [--keep 0.6 0.8] [--fit CLIP …] [--lag 3] [--every 1] [--out FILE]

BUNDLE is one of the zoo or a folder; CLIP a video, with NAME.boxes.csv beside it where AP50 is to be counted, or a folder of
pictures. With --keep the deltas' code is learnt anew from the clips of --fit, which should not be those that are judged, once
for every share of a step; without it the bundle's own is used. A stream answers `lag` frames late: each frame is coded
against the one so many before it, as both halves would have it, and sent whole where that is not larger. Frames that are
sent whole count too. Bytes are payloads of the real coder, headers included; AP50 is of what the server's tail answers to what
really arrives.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.edge_server.engines import Tail
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.models.bundling.films import FeatureHead, Film, film
from isthmus.proto.codec import Codec
from isthmus.proto.tasks.box_score import Judged, scored
from isthmus.proto.temporal.sequences import coded, fit_deltas

Floats = NDArray[np.float32]
LEAST_SCORE = 0.01
"""Boxes below it say nothing; AP counts all others, however unsure."""


@dataclass(frozen=True)
class Row:
    """One step and number of layers, with one share kept."""

    step: float
    """The step that so many layers make."""
    layers: int
    keep: float
    lag: int
    whole_bytes: float
    sent_bytes: float
    share: float
    worst_clip: float
    """The share of the clip that gains least."""
    most_over_bytes: int
    """The most that any frame took beyond its whole size."""
    as_delta: float
    """The share of frames that were sent as deltas."""
    ap50_whole: float | None = None
    ap50_sent: float | None = None


class Judge:
    """AP50 of what the server answers."""

    def __init__(self, bundle: Bundle) -> None:
        self._tail, self._labels = Tail(bundle, 1), bundle.manifest.labels
        manifest = bundle.manifest
        if manifest.boxes is not None:
            manifest = msgspec.structs.replace(
                manifest, boxes=msgspec.structs.replace(manifest.boxes, score=LEAST_SCORE)
            )
        self._task = manifest.answers
        self._known: dict[bytes, Any] = {}

    def judged(self, film_: Film, frame: int, features: Floats) -> Judged:
        """One frame's answer."""
        packed = self._tail.run([features])[0]
        assert packed is not None
        found = self._task.guess(packed, temperature=1.0, accuracy=0.5).detail
        assert isinstance(found, tuple)
        return Judged(*film_.shape, film_.truth[frame], found)

    def ap50(self, answers: Sequence[Judged]) -> float:
        """Of all answers together."""
        return scored(answers, self._labels).ap50


def measured(
    codec: Codec, films: Sequence[Film], step: int, layers: int, lag: int, judge: Judge | None, judge_every: int
) -> Row:
    """One row of the table."""
    deltas, packing = codec.config.deltas, codec.packing
    assert deltas is not None
    whole, sent, clips, as_delta = [], [], [], 0
    answers: tuple[list[Judged], list[Judged]] = [], []
    for each in films:
        before = len(whole)
        for i, frame in enumerate(coded(codec, each.features, step, layers, lag)):
            whole.append(frame.whole_bytes)
            sent.append(frame.sent_bytes)
            as_delta += frame.as_delta
            if judge is not None and each.truth and i % judge_every == 0:
                alone = codec.decode(codec.encode(each.features[i], step)[:layers])
                then = packing.features(frame.reconstruction.symbols, step)  # type: ignore[union-attr]
                answers[0].append(judge.judged(each, i, alone))
                answers[1].append(judge.judged(each, i, then))
        clips.append(sum(sent[before:]) / sum(whole[before:]))
    scores = [judge.ap50(row) for row in answers] if judge is not None and answers[0] else [None, None]
    return Row(
        step=codec.config.steps[step] * (3 if layers == 1 else 1),
        layers=layers,
        keep=deltas.keep[step][layers - 1],
        lag=lag,
        whole_bytes=float(np.mean(whole)),
        sent_bytes=float(np.mean(sent)),
        share=sum(sent) / sum(whole),
        worst_clip=max(clips),
        most_over_bytes=int(max(s - w for s, w in zip(sent, whole, strict=True))),
        as_delta=as_delta / len(sent),
        ap50_whole=scores[0],
        ap50_sent=scores[1],
    )


def printed(rows: Sequence[Row]) -> None:
    """The table, in Markdown."""
    print(
        "| step | layers | keep | lag | whole B | sent B | share | worst clip | deltas | over B | AP50 whole | AP50 sent |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for r in rows:
        ap = [f"{score:.3f}" if score is not None else "–" for score in (r.ap50_whole, r.ap50_sent)]
        print(
            f"| {r.step:.3g} | {r.layers} | {r.keep:g} | {r.lag} | {r.whole_bytes:.0f} | {r.sent_bytes:.0f} | {r.share:.2f} "
            f"| {r.worst_clip:.2f} | {r.as_delta:.0%} | {r.most_over_bytes} | {ap[0]} | {ap[1]} |"
        )


def main() -> None:
    """Print the table; write it as JSON lines too where asked."""
    options = _options()
    bundle = bundles.load(options.bundle)
    head = FeatureHead(bundle, options.width or max(bundle.manifest.widths))
    films = [film(path, head, every=options.every, most=options.frames) for path in options.clips]
    print(f"{len(films)} clips, {sum(len(f.features) for f in films)} frames", file=sys.stderr)
    config, judge = bundle.codec, Judge(bundle) if any(f.truth for f in films) and bundle.manifest.boxes else None
    configs = [config]
    if options.keep:
        fitted_on = [film(path, head, every=options.every, most=options.frames).features for path in options.fit] or [
            f.features for f in films
        ]
        every = ((0.0,) * 2,) * len(config.steps)
        shares = [tuple(tuple(keep for _ in row) for row in every) for keep in options.keep]
        configs = [fit_deltas(config, fitted_on, share, lags=(options.lag,)) for share in shares]
    elif config.deltas is None:
        raise SystemExit(
            f"{options.bundle}: codes no deltas; give --keep, and --fit with clips to learn their code from"
        )
    codecs = [Codec(replace(each, picture=None)) for each in configs]
    rows = [
        measured(codec, films, step, layers, options.lag, judge, options.judge_every)
        for step in options.steps or range(len(config.steps))
        for layers in options.layers
        for codec in codecs
    ]
    printed(rows)
    if options.out:
        options.out.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--fit", nargs="*", type=Path, default=[], help="clips to learn the deltas' code from")
    parser.add_argument("--keep", nargs="*", type=float, default=[], help="shares of a step, each tried")
    parser.add_argument("--lag", type=int, default=3, help="frames that an answer takes")
    parser.add_argument("--every", type=int, default=1, help="take every so many frames of a clip")
    parser.add_argument("--frames", type=int, default=150, help="frames of each clip at most")
    parser.add_argument("--judge-every", type=int, default=10, help="count AP50 on every so many of them")
    parser.add_argument("--width", type=float, help="of the head; the widest")
    parser.add_argument("--steps", nargs="*", type=int, help="indices into the ladder; all")
    parser.add_argument("--layers", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
