"""Whether every index in a `.tflite` leads somewhere: LiteRT's verifier checks offsets, not what the numbers behind them mean.

Checked once when a file is parsed, so that nobody who follows an index later needs to ask. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def fault(model: Any, types: frozenset[int]) -> str | None:
    """The first index of a parsed file (the schema's own objects) that leads nowhere; `types` are those that tensors have."""
    return next(_faults(model, types), None)


def _faults(model: Any, types: frozenset[int]) -> Iterator[str]:
    if not model.subgraphs or model.buffers is None:
        yield "no subgraphs or no buffers"
        return
    for number, subgraph in enumerate(model.subgraphs):
        where = f"subgraph {number}"
        tensors = subgraph.tensors or []
        for index, tensor in enumerate(tensors):
            if not 0 <= tensor.buffer < len(model.buffers) or tensor.type not in types:
                yield f"{where}: tensor {index}: buffer {tensor.buffer} or type {tensor.type}"
        ends = (*_listed(subgraph.inputs), *_listed(subgraph.outputs))
        yield from (f"{where}: tensor {i} as input or output" for i in ends if not 0 <= i < len(tensors))
        for index, operator in enumerate(subgraph.operators or []):
            yield from (f"{where}: operator {index}: {why}" for why in _operator_faults(model, tensors, operator))
    for signature in model.signatureDefs or []:
        yield from _signature_faults(model, signature)


def _operator_faults(model: Any, tensors: Any, operator: Any) -> Iterator[str]:
    if not 0 <= operator.opcodeIndex < len(model.operatorCodes or []):
        yield f"code {operator.opcodeIndex}"
    optional = (*_listed(operator.inputs), *_listed(operator.intermediates))
    absent = [i for i in optional if not -1 <= i < len(tensors)]  # -1 stands for one that it does without
    yield from (f"tensor {i}" for i in [*absent, *(i for i in _listed(operator.outputs) if not 0 <= i < len(tensors))])


def _signature_faults(model: Any, signature: Any) -> Iterator[str]:
    if not 0 <= signature.subgraphIndex < len(model.subgraphs):
        yield f"signature: subgraph {signature.subgraphIndex}"
        return
    count = len(model.subgraphs[signature.subgraphIndex].tensors or [])
    ports = [*(signature.inputs or []), *(signature.outputs or [])]
    yield from (f"signature: tensor {p.tensorIndex}" for p in ports if not 0 <= p.tensorIndex < count)


def _listed(vector: Any) -> list[int]:
    return [] if vector is None else [int(i) for i in vector]
