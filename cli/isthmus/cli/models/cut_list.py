"""The places where a model can be cut, as lines of 80 columns: those that pay first, the rest where it is asked for."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting.cuts import Cut
from isthmus.models.splitting.split import Conditions, Place

COLUMNS = 80


def useful(graph: Graph, places: Sequence[Place]) -> list[Place]:
    """The cuts that pay: they send less than the picture has, and less than every cut before them, whose heads do less."""
    least = float(graph.tensors[graph.inputs[0]].size_bytes)
    found = []
    for place in places:
        if place.cut.obstacle is None and (size := _sent(place)) < least:
            found.append(place)
            least = size
    return found


def rows(graph: Graph, places: Sequence[Place], limits: Conditions | None) -> list[dict[str, Any]]:
    """Every place as the fields of JSON, in the order of execution."""
    pays = {place.cut.after for place in useful(graph, places)}
    return [{**row(graph, place, limits), "useful": place.cut.after in pays} for place in places]


def row(graph: Graph, place: Place, limits: Conditions | None) -> dict[str, Any]:
    """One place as the fields of JSON."""
    cut = place.cut
    fields = {
        "after": cut.after,
        "operator": graph.operators[cut.after].kind,
        "crossing": [{"name": t.name, "shape": t.shape[1:], "dtype": t.dtype} for t in cut.crossing],
        "raw_bytes": cut.raw_bytes,
        "head_flops": cut.head_flops,
        "tail_flops": cut.tail_flops,
        "obstacle": cut.obstacle,
    }
    if limits is not None and place.coded_bytes is not None:
        fields |= {"coded_bytes": round(place.coded_bytes, 1), **_times(cut, place.coded_bytes, limits)}
    return fields


def lines(graph: Graph, places: Sequence[Place], limits: Conditions | None, *, every: bool) -> Iterator[str]:
    """The list as text; `every`: also the cuts that do not pay, and the places that cannot be cut."""
    pay = useful(graph, places)
    usable = [place for place in places if place.cut.obstacle is None]
    if not pay:
        yield "no cut sends fewer bytes than the picture has; these send the fewest:"
        pay = sorted(sorted(usable, key=_sent)[:5], key=lambda place: place.cut.after)
    quickest = None if limits is None else min(pay, key=lambda place: _answer_s(place, limits))
    yield _head(limits)
    yield from (_line(graph, place, limits, quickest) for place in pay)
    if quickest is not None:
        yield "* the quickest of them on this device and link"
    rest = [place for place in usable if place not in pay]
    if not every:
        impossible = len(places) - len(usable)
        if rest or impossible:
            yield f"{len(rest)} more cuts that send more or do more, {impossible} places that cannot be cut: --all"
        return
    if rest:
        yield "the other cuts, which send more or do more:"
        yield from (_line(graph, place, limits, None) for place in rest)
    yield from _obstacles(places)


def _obstacles(places: Sequence[Place]) -> Iterator[str]:
    """Places one after the other that cannot be cut for the same reason, in a line."""
    for obstacle, group in groupby(places, key=lambda place: place.cut.obstacle):
        if obstacle is not None:
            after = [place.cut.after for place in group]
            span = str(after[0]) if len(after) == 1 else f"{after[0]} to {after[-1]}"
            yield textwrap.shorten(f"no cut after {span}: {obstacle}", COLUMNS, placeholder=" …")


def _head(limits: Conditions | None) -> str:
    if limits is None:
        return f"{'after':>5} {'operator':<17} {'crosses':<22} {'raw bytes':>10} {'head':>8} {'tail MFLOP':>10}"
    return (
        f"{'after':>5} {'operator':<16} {'crosses':<18} {'bytes':>7} {'device ms':>9} {'server ms':>9} {'answer ms':>9}"
    )


def _line(graph: Graph, place: Place, limits: Conditions | None, quickest: Place | None) -> str:
    cut, kind = place.cut, graph.operators[place.cut.after].kind
    if limits is None or place.coded_bytes is None:
        work = f"{cut.head_flops / 1e6:8.1f} {cut.tail_flops / 1e6:10.1f}"
        return f"{cut.after:5} {_clipped(kind, 17)} {_clipped(_crosses(cut), 22)} {cut.raw_bytes:10,} {work}"
    times = " ".join(f"{value * 1e3:9.1f}" for value in _times(cut, place.coded_bytes, limits).values())
    mark = "*" if place is quickest else ""
    return f"{cut.after:5} {_clipped(kind, 16)} {_clipped(_crosses(cut), 18)} {place.coded_bytes:7,.0f} {times}{mark}"


def _crosses(cut: Cut) -> str:
    first, *more = cut.crossing
    if more:
        return f"{1 + len(more)} tensors {first.dtype}"
    return "×".join(map(str, first.shape[1:])) + f" {first.dtype}"


def _clipped(words: str, width: int) -> str:
    return f"{words:<{width}}" if len(words) <= width else words[: width - 1] + "…"


def _sent(place: Place) -> float:
    """Coded bytes where they are known, raw ones where not."""
    return float(place.cut.raw_bytes) if place.coded_bytes is None else place.coded_bytes


def _answer_s(place: Place, limits: Conditions) -> float:
    return math.inf if place.coded_bytes is None else limits.seconds(place.cut, place.coded_bytes)


def _times(cut: Cut, size_bytes: float, limits: Conditions) -> dict[str, float]:
    return {
        "device_s": round(limits.head_s(cut), 6),
        "server_s": round(limits.tail_s(cut), 6),
        "answer_s": round(limits.seconds(cut, size_bytes), 6),
    }
