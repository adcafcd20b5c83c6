"""A detector that is to be cut, and what of it a training follows: where it is cut, its answers and the maps before them.

Nothing here imports torch. The first layers become the head and stay the file's own up to `tuned_from`; the answers are the
outputs of the last convolutions: logits in front of a sigmoid or softmax, and places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from isthmus.models.flatbuffer import Graph, Operator, Part, Tensor
from isthmus.models.picture_ladder import Input
from isthmus.models.splitting.cuts import Cut, cuts, needed
from isthmus.proto.codec import STATIC_MAX_ELEMENTS
from isthmus.proto.errors import ModelError

Kind = Literal["sigmoid", "softmax", "places"]
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
SQUASHING: dict[str, Kind] = {"LOGISTIC": "sigmoid", "SOFTMAX": "softmax"}
FROZEN_SHARE = 0.75
"""Of the head's work, at most so much is left as it is: early layers know edges, and are dear to train."""
HEAD_SHARE = 0.32
"""Of the detector's FLOPs that the head may take, with the bottleneck's encoder, unless another is asked for."""
BLOCK = 2
"""Places of the cut's map, high and wide, that become one of the bottleneck's."""


@dataclass(frozen=True)
class Answer:
    """An output of a last convolution: a map (H, W, C), and what its values are."""

    tensor: Tensor
    kind: Kind

    @property
    def level(self) -> tuple[int, ...]:
        """(H, W): answers of one level are about the same places."""
        return self.tensor.shape[1:3]


@dataclass(frozen=True)
class DetectorTeacher:
    """A detector, its cut, and the tensors that are followed."""

    graph: Graph
    input: Input
    cut: Cut
    answers: tuple[Answer, ...]
    hints: tuple[Tensor, ...]
    """For each level the last map that all its answers are made from."""
    tuned_from: Tensor
    """The head learns from here on."""
    fingerprint: str

    @classmethod
    def of(cls, graph: Graph, input_: Input, *, head_share: float, at: int | None = None) -> DetectorTeacher:
        """`head_share` is what the head may take of the FLOPs, bottleneck included; `at` names the operator to cut after.

        Raises ModelError when the picture is not square, where no cut is small enough, and where the answers are not told.
        """
        if input_.shape[0] != input_.shape[1] or input_.layout != "last" or input_.colours == "grey":
            raise ModelError(
                f"{graph.path}: takes pictures of {input_.shape}; a detector is distilled from square ones in colour"
            )
        answers = _answers(graph)
        cut = _cut(graph, answers, head_share, at)
        (crossing,) = cut.crossing
        return cls(
            graph,
            input_,
            cut,
            answers,
            _hints(graph, answers, crossing.index),
            _tuned_from(graph, cut),
            hashlib.sha256(graph.path.read_bytes()).hexdigest(),
        )

    @property
    def crossing(self) -> Tensor:
        """The map at the cut: (1, H, W, C)."""
        return self.cut.crossing[0]

    @property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The levels, finest first."""
        return tuple(sorted({answer.level for answer in self.answers}, reverse=True))

    @property
    def followed(self) -> tuple[int, ...]:
        """The tensors that a tail in training gives: hints, then answers."""
        return (*(t.index for t in self.hints), *(a.tensor.index for a in self.answers))

    def part(self, begin: int, outputs: Iterable[int]) -> Part:
        """What computes `outputs` from the tensor `begin`."""
        wanted = tuple(outputs)
        return Part(
            self.graph,
            "part",
            needed(self.graph, wanted, stop=(begin,)),
            {"features": begin},
            {f"output{i}": t for i, t in enumerate(wanted)},
        )


def _users(graph: Graph) -> dict[int, list[Operator]]:
    users: dict[int, list[Operator]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            users.setdefault(index, []).append(operator)
    return users


def _answers(graph: Graph) -> tuple[Answer, ...]:
    """The outputs of convolutions that no further convolution depends on."""
    users, before = _users(graph), set[int]()
    for operator in reversed(graph.operators):
        if operator.kind in CONVOLUTIONS or before.intersection(operator.outputs):
            before.update(operator.inputs)
    last = [o for o in graph.operators if o.kind in CONVOLUTIONS and not before.intersection(o.outputs)]
    found = tuple(Answer(graph.tensors[o.outputs[0]], _kind(users, o.outputs[0])) for o in last)
    if all(answer.kind == "places" for answer in found):
        raise ModelError(
            f"{graph.path}: none of its {len(found)} last convolutions is followed by a sigmoid or a softmax: which of its "
            "answers are scores is not told; export the model with its scores as shares"
        )
    return found


def _kind(users: dict[int, list[Operator]], tensor: int) -> Kind:
    """What becomes of an answer: a sigmoid or a softmax makes scores of it, maybe in another shape."""
    for operator in users.get(tensor, []):
        if operator.kind in SQUASHING:
            return SQUASHING[operator.kind]
        if (
            operator.kind in ("RESHAPE", "TRANSPOSE", "DEQUANTIZE")
            and (kind := _kind(users, operator.outputs[0])) != "places"
        ):
            return kind
    return "places"


def _cut(graph: Graph, answers: Sequence[Answer], head_share: float, at: int | None) -> Cut:
    found = [cut for cut in cuts(graph) if _is_map(cut)]
    before = min(answer.tensor.index for answer in answers)
    fitting = [
        c
        for c in found
        if c.crossing[0].index < before and c.head_flops + encoder_flops(c.crossing[0]) <= head_share * graph.flops
    ]
    if at is not None:
        chosen = next((cut for cut in found if cut.after == at), None)
        if chosen is None:
            near = ", ".join(str(cut.after) for cut in sorted(found, key=lambda cut: abs(cut.after - at))[:3])
            raise ModelError(
                f"{graph.path}: after operator {at} no single map crosses that can be made smaller; near are {near or 'none'}"
            )
        return chosen
    if not found and any(len(cut.crossing) == 1 and cut.crossing[0].dtype != "float32" for cut in cuts(graph)):
        raise ModelError(f"{graph.path}: its maps are 8-bit; distil the float32 file that it was made of")
    if not fitting:
        raise ModelError(
            f"{graph.path}: no cut where a single map crosses lies within {head_share:.0%} of the FLOPs; give the head more "
            "(--head-share)"
        )
    return fitting[-1]


def _is_map(cut: Cut) -> bool:
    if cut.obstacle or len(cut.crossing) != 1:
        return False
    tensor = cut.crossing[0]
    if len(tensor.shape) != 4 or tensor.dtype != "float32":
        return False
    height, width, _ = tensor.shape[1:]
    return height % BLOCK == width % BLOCK == 0 and min(height, width) > 2 * BLOCK


def bottleneck_channels(tensor: Tensor) -> int:
    """Half as many as the map has, and no more than the codec takes."""
    height, width, channels = tensor.shape[1:]
    return max(1, min(channels // 2, STATIC_MAX_ELEMENTS * BLOCK**2 // (height * width)))


def encoder_flops(tensor: Tensor) -> int:
    """What the bottleneck's encoder takes: the transform of blocks, and a separable branch beside it."""
    height, width, channels = tensor.shape[1:]
    places, kept = height * width // BLOCK**2, bottleneck_channels(tensor)
    return 2 * places * (BLOCK**2 * channels * kept + 9 * channels + channels * kept)


def _ancestors(graph: Graph, tensor: int) -> set[int]:
    wanted = {tensor}
    for operator in reversed(graph.operators):
        if wanted.intersection(operator.outputs):
            wanted.update(operator.inputs)
    return wanted - {tensor}


def _hints(graph: Graph, answers: Sequence[Answer], crossing: int) -> tuple[Tensor, ...]:
    found = []
    for level in sorted({answer.level for answer in answers}, reverse=True):
        common = set.intersection(*(_ancestors(graph, a.tensor.index) for a in answers if a.level == level))
        maps = [graph.tensors[i] for i in common if len(graph.tensors[i].shape) == 4 and not graph.tensors[i].constant]
        behind = [t for t in maps if t.shape[1:3] == level and t.index != crossing]
        if behind:
            found.append(max(behind, key=lambda t: _made(graph, t.index)))
    return tuple(found)


def _made(graph: Graph, tensor: int) -> int:
    return next((o.index for o in graph.operators if tensor in o.outputs), -1)


def _tuned_from(graph: Graph, cut: Cut) -> Tensor:
    """The last single map before the cut up to which the head is left as it is; the picture, where there is none."""
    early = [c for c in cuts(graph) if _single(c) and c.head_flops <= FROZEN_SHARE * cut.head_flops]
    return early[-1].crossing[0] if early else graph.tensors[graph.inputs[0]]


def _single(cut: Cut) -> bool:
    return not cut.obstacle and len(cut.crossing) == 1 and len(cut.crossing[0].shape) == 4
