"""Finds where a graph can be cut in two, what would cross there, and the two halves as files. Pure.

A cut is a place in the file's own order of execution: the head runs everything up to it, the tail the rest, and every
tensor that was made before and is needed after crosses, skip connections included. What is computed from constants
alone (weights kept in float16, say) never crosses: each half computes for itself what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.models.flatbuffer import Graph, Part, Tensor, written
from isthmus.proto.errors import ModelError

CODABLE = ("float32", "int8", "uint8")
"""Types of tensors that the feature codec takes."""
HEAD, TAIL, IMAGE = "head", "tail", "image"
"""The halves' signatures, and the head's input."""


@dataclass(frozen=True)
class Cut:
    """One place to cut, after the operator `after`; `obstacle` says why not, where one must not."""

    after: int
    crossing: tuple[Tensor, ...]
    head_flops: int
    tail_flops: int
    head_traffic_bytes: int
    tail_traffic_bytes: int
    obstacle: str | None

    @property
    def raw_bytes(self) -> int:
        """The bytes that would cross uncoded."""
        return sum(tensor.size_bytes for tensor in self.crossing)


def cuts(graph: Graph) -> tuple[Cut, ...]:
    """Every place between two operators, from the picture to the answer. Raises ModelError when there is no usable one."""
    if len(graph.inputs) != 1:
        raise ModelError(f"{graph.path}: takes {len(graph.inputs)} inputs, expected one picture")
    derived = _derived(graph)
    working = [o for o in graph.operators if not derived.issuperset(o.outputs)]
    found = [_cut(graph, derived, operator.index) for operator in working[:-1]]
    if all(cut.obstacle for cut in found):
        why = f"; {found[0].obstacle}" if found else ""
        raise ModelError(f"{graph.path}: no place to cut among {len(working)} operators{why}")
    return tuple(found)


def cut_after(graph: Graph, after: int) -> Cut:
    """The cut after operator `after`. Raises ModelError saying why there is none, or naming the nearest."""
    found = cuts(graph)
    for cut in found:
        if cut.after == after:
            if cut.obstacle:
                raise ModelError(f"{graph.path}: after operator {after}: {cut.obstacle}")
            return cut
    nearest = min((cut.after for cut in found if not cut.obstacle), key=lambda index: abs(index - after))
    raise ModelError(f"{graph.path}: no cut after operator {after}; the nearest is after {nearest}")


def _derived(graph: Graph) -> frozenset[int]:
    """Constants, and what is computed from them alone."""
    known = {tensor.index for tensor in graph.tensors if tensor.constant}
    for operator in graph.operators:
        if operator.inputs and known.issuperset(operator.inputs):
            known.update(operator.outputs)
    return frozenset(known)


def _cut(graph: Graph, derived: frozenset[int], after: int) -> Cut:
    before = [o for o in graph.operators if o.index <= after]
    behind = [o for o in graph.operators if o.index > after]
    made = {*graph.inputs, *(i for o in before for i in o.outputs)} - derived
    needed = {*graph.outputs, *(i for o in behind for i in o.inputs)}
    crossing = tuple(graph.tensors[i] for i in sorted(made & needed))
    return Cut(
        after,
        crossing,
        head_flops=sum(o.flops for o in before),
        tail_flops=sum(o.flops for o in behind),
        head_traffic_bytes=sum(o.traffic_bytes for o in before),
        tail_traffic_bytes=sum(o.traffic_bytes for o in behind),
        obstacle=_obstacle(graph, crossing),
    )


def _obstacle(graph: Graph, crossing: tuple[Tensor, ...]) -> str | None:
    for tensor in crossing:
        if tensor.index in graph.inputs:
            return "the picture itself is needed behind it"
        if tensor.index in graph.outputs:
            return f"{tensor.name}, an answer of the model, is made before it"
        if not tensor.sized:
            return f"{tensor.name}, whose size is only known at run time, would have to cross"
        if tensor.dtype not in CODABLE:
            return f"{tensor.name}, a tensor of {tensor.dtype}, would have to cross"
        if tensor.dtype != "float32" and tensor.scale <= 0:
            return f"{tensor.name} is quantised by channel, or not at all"
        if not tensor.shape or tensor.shape[0] != 1:
            return f"{tensor.name} has no batch of one to begin with: {tensor.shape}"
    return None if crossing else "nothing crosses it"


def names(cut: Cut) -> tuple[str, ...]:
    """What the crossing tensors are called in the halves' signatures."""
    count = len(cut.crossing)
    return ("features",) if count == 1 else tuple(f"features{i}" for i in range(count))


def halves(graph: Graph, cut: Cut) -> tuple[Part, Part]:
    """Head and tail: `image` -> features, features -> `output0`, `output1`, ..."""
    features = {name: tensor.index for name, tensor in zip(names(cut), cut.crossing, strict=True)}
    outputs = {f"output{i}": index for i, index in enumerate(graph.outputs)}
    head = needed(graph, features.values(), stop=())
    tail = needed(graph, graph.outputs, stop=features.values())
    image = {IMAGE: graph.inputs[0]}
    return Part(graph, HEAD, head, image, features), Part(graph, TAIL, tail, features, outputs)


def whole(graph: Graph, key: str) -> Part:
    """The uncut graph as one signature: `image` -> `output0`, ..."""
    outputs = {f"output{i}": index for i, index in enumerate(graph.outputs)}
    return Part(graph, key, tuple(o.index for o in graph.operators), {IMAGE: graph.inputs[0]}, outputs)


def cut_files(graph: Graph, cut: Cut) -> tuple[bytes, bytes]:
    """The head and the tail as `.tflite` files of one signature each."""
    head, tail = halves(graph, cut)
    return written([head]), written([tail])


def needed(graph: Graph, targets: Iterable[int], *, stop: Iterable[int]) -> tuple[int, ...]:
    """The operators that `targets` depend on, in order, without going behind the tensors of `stop`."""
    wanted, given, found = set(targets), set(stop), []
    for operator in reversed(graph.operators):
        if wanted.intersection(operator.outputs) - given:
            found.append(operator.index)
            wanted.update(operator.inputs)
    return tuple(reversed(found))


def only_compares(graph: Graph, cut: Cut) -> bool:
    """Whether the tail only asks which channel is greatest at each place: resizing, then an arg max over channels.

    It then answers the same when all channels of a place change by the same amount, since resizing is linear.
    """
    kinds = [graph.operators[i].kind for i in halves(graph, cut)[1].operators]
    return (
        len(cut.crossing) == 1
        and kinds[-1:] == ["ARG_MAX"]
        and set(kinds[:-1]) <= {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"}
        and graph.tensors[graph.outputs[0]].shape == graph.tensors[graph.operators[-1].inputs[0]].shape[:-1]
    )
