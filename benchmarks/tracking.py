"""What a tracker is worth between detections, and to answers that are late: frames right on whole clips.

    isthmus models clips BUNDLE FOLDER           # once: what the bundle finds in each frame, and where that goes
    python benchmarks/tracking.py BUNDLE

A frame is right when what is in it was found: class, and intersection over union of a half or more. Every row is one of
the bundle's early exits or the server's best answer from one width. `hold` says the last boxes until the next detection,
`carried` follows them by median flow, `voted` names things by all detections of their track. The mean is over clips, since
clips and not frames are the sample; after +- stands its standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import mean, stdev

from isthmus.device.tracking.tracks import Place, Tracks, boxes_of, things_in
from isthmus.emulation.sequences import table as sequences
from isthmus.emulation.sequences.rows import Rows, found
from isthmus.emulation.sequences.table import Sequences
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto.vocabulary import Box

INTERVALS = (1, 8, 15, 30)
LATE_S = 0.2
LATE_INTERVAL = 15
MODES = ("hold", "carried", "voted")


def main(name: str) -> None:
    """Print the two tables."""
    bundle = bundles.load(name)
    table = sequences.load(bundle)
    rows, points = Rows(table), dict(_points(bundle))
    print(f"{bundle.manifest.name}: {len(table.clip)} frames of {len(table.names)} clips, frames right by clip, mean\n")
    print(f"| answers of | detector on every frame | {' | '.join(_titles())} |")
    print("|---" * (len(_titles()) + 2) + "|")
    for title, column in points.items():
        plain = _score(table, rows, lambda clip, c=column: _held(clip, rows, c, 1, 0))
        cells = [
            _score(table, rows, lambda clip, c=column, n=n, m=m: _played(clip, rows, c, n, 0, m)) for n, m in _cells()
        ]
        print(f"| {title} | {plain} | {' | '.join(cells)} |")
    late = round(LATE_S * float(table.fps[0]))
    print(f"\nOne detection every {LATE_INTERVAL} frames, {LATE_S * 1e3:.0f} ms ({late} frames) late\n")
    print("Frames before the first late answer could be there are left out of all columns.\n")
    print("| answers of | in time, carried | late, held | late, carried | late, voted |\n|---|---|---|---|---|")
    for title, column in points.items():
        fresh = _score(table, rows, lambda clip, c=column: _played(clip, rows, c, LATE_INTERVAL, 0, "carried"), late)
        cells = [
            _score(table, rows, lambda clip, c=column, m=m: _played(clip, rows, c, LATE_INTERVAL, late, m), late)
            for m in MODES
        ]
        print(f"| {title} | {fresh} | {' | '.join(cells)} |")


def _cells() -> list[tuple[int, str]]:
    return [(1, "voted"), *((n, mode) for n in INTERVALS[1:] for mode in MODES)]


def _titles() -> list[str]:
    return [f"every {n}: {mode}" if n > 1 else "every frame, voted" for n, mode in _cells()]


def _points(bundle: Bundle) -> Iterator[tuple[str, int]]:
    """The last exit and the server's best answer of each width, as columns of the table."""
    points, last = bundle.manifest.points, len(bundle.manifest.stages) - 1
    for width in sorted(bundle.manifest.widths):
        yield f"exit, width {width:g}", next(i for i, p in enumerate(points) if (p.width, p.exit) == (width, last))
    for width in sorted(bundle.manifest.widths):
        sent = [(p.accuracy, -i) for i, p in enumerate(points) if p.width == width and p.step is not None]
        yield f"server, width {width:g}", -max(sent)[1]


Answers = Iterator[tuple[Box, ...]]


def _score(table: Sequences, rows: Rows, play: Callable[[Sequence[int]], Answers], skipped: int = 0) -> str:
    """The mean over clips, each without its first `skipped` frames."""
    by_clip = []
    for clip in range(len(table.names)):
        frames = [n for n, c in enumerate(table.clip.tolist()) if c == clip]
        answered = list(zip(frames, play(frames), strict=True))[skipped:]
        by_clip.append(mean(found(boxes, rows.truth(n)) for n, boxes in answered))
    error = stdev(by_clip) / len(by_clip) ** 0.5 if len(by_clip) > 1 else 0.0
    return f"{mean(by_clip):.3f} ± {error:.3f}"


def _held(frames: Sequence[int], rows: Rows, column: int, every: int, late: int) -> Answers:
    boxes: tuple[Box, ...] = ()
    for t in range(len(frames)):
        if t >= late and (t - late) % every == 0:
            boxes = rows.boxes(frames[t - late], column)
        yield boxes


def _played(frames: Sequence[int], rows: Rows, column: int, every: int, late: int, mode: str) -> Answers:
    if mode == "hold":
        yield from _held(frames, rows, column, every, late)
        return
    tracks = Tracks()
    for t, frame in enumerate(frames):
        if t:
            tracks.move(dict(zip(tracks.things, rows.followed((frame - 1, frame), tracks.places), strict=True)))
        if t >= late and (t - late) % every == 0:
            detected = things_in(rows.boxes(frame - late, column))
            places: Sequence[Place | None] = [place for place, _ in detected]
            if late:
                places = rows.followed((frame - late, frame), [place for place, _ in detected])
            if mode == "carried":
                tracks = Tracks()
            moved = zip(places, detected, strict=True)
            tracks.detect([(place, scores) for place, (_, scores) in moved if place is not None], frame)
        yield boxes_of([(thing.place, thing.scores) for thing in tracks.things])


if __name__ == "__main__":
    main(*sys.argv[1:])
