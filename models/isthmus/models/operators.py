"""What is known of TensorFlow Lite's operators: which ones forbid a cut, and how many operations the others take. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Shape = tuple[int, ...]

CARRIED = ("TFLite_Detection_PostProcess",)
"""Custom operators that LiteRT itself brings; they run whole in one half."""
CONTROL_FLOW = frozenset({"CALL", "CALL_ONCE", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE", "WHILE"})
BRANCHING = "IF"
"""The operator that runs one of two subgraphs; whole in one half, it and both of them."""
STATEFUL = frozenset(
    {
        *(
            "ASSIGN_VARIABLE",
            "BIDIRECTIONAL_SEQUENCE_LSTM",
            "BIDIRECTIONAL_SEQUENCE_RNN",
            "HASHTABLE",
            "HASHTABLE_FIND",
        ),
        *("HASHTABLE_IMPORT", "HASHTABLE_LOOKUP", "HASHTABLE_SIZE", "LSTM", "MULTINOMIAL", "RANDOM_STANDARD_NORMAL"),
        *("RANDOM_UNIFORM", "READ_VARIABLE", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        *("UNIDIRECTIONAL_SEQUENCE_RNN", "VAR_HANDLE"),
    }
)
"""Two frames would not be independent of each other (random ones among them: not even two runs of one frame)."""
UNKNOWN_SIZE = frozenset({"IF", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "UNIQUE", "WHERE"})
"""The shape of their outputs depends on the values of their inputs."""

_MOVES = frozenset(
    {
        *(
            "BATCH_TO_SPACE_ND",
            "BITCAST",
            "BROADCAST_TO",
            "CONCATENATION",
            "DEPTH_TO_SPACE",
            "EXPAND_DIMS",
            "FILL",
            "GATHER",
        ),
        *(
            "GATHER_ND",
            "MIRROR_PAD",
            "PACK",
            "PAD",
            "PADV2",
            "RANK",
            "RESHAPE",
            "RESIZE_NEAREST_NEIGHBOR",
            "REVERSE_V2",
        ),
        *(
            "SHAPE",
            "SLICE",
            "SPACE_TO_BATCH_ND",
            "SPACE_TO_DEPTH",
            "SPLIT",
            "SPLIT_V",
            "SQUEEZE",
            "STRIDED_SLICE",
            "TILE",
        ),
        *("TRANSPOSE", "UNPACK", "ZEROS_LIKE"),
    }
)
"""Operators that move values and compute none."""
_ONE_EACH = frozenset(
    {
        *(
            "ABS",
            "ADD",
            "CAST",
            "CEIL",
            "COS",
            "DEQUANTIZE",
            "DIV",
            "ELU",
            "EQUAL",
            "EXP",
            "FLOOR",
            "FLOOR_DIV",
            "FLOOR_MOD",
        ),
        *("GELU", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND"),
        *("LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "NEG", "NOT_EQUAL", "POW", "PRELU"),
        *(
            "QUANTIZE",
            "RELU",
            "RELU6",
            "RELU_0_TO_1",
            "RELU_N1_TO_1",
            "ROUND",
            "RSQRT",
            "SELECT",
            "SELECT_V2",
            "SIGN",
            "SIN",
        ),
        *("SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TANH"),
    }
)
"""One operation for each value that they give, transcendental ones too, as is the custom of such counts."""
_ONE_PER_INPUT = frozenset(
    {
        "ARG_MAX",
        "ARG_MIN",
        "CUMSUM",
        "MEAN",
        "REDUCE_ALL",
        "REDUCE_ANY",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "REDUCE_PROD",
        "SUM",
    }
)
_SEVERAL_EACH = {"L2_NORMALIZATION": 3, "LOG_SOFTMAX": 5, "RESIZE_BILINEAR": 7, "SOFTMAX": 5}
"""Operations for each value: softmax takes a maximum, a difference, an exponential, a sum and a quotient."""


_COUNTED = {
    "CONV_2D": (0, 4),
    "DEPTHWISE_CONV_2D": (0, 4),
    "FULLY_CONNECTED": (0, 1),
    "TRANSPOSE_CONV": (0, 4, 0),
    "CONV_3D": (0, 5),
    "BATCH_MATMUL": (2, 0),
}
"""Inputs that `flops` reads, by the axes that each has at least."""
_POOLS = ("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D")


def countable(kind: str, inputs: Sequence[Shape], operator: Any) -> bool:
    """Whether an operator has all that `flops` reads of it; one that has not is damaged."""
    needed = _COUNTED.get(kind, (0,) if kind in _ONE_PER_INPUT else ())
    options = ("filterHeight", "filterWidth") if kind in _POOLS else ("adjX",) if kind == "BATCH_MATMUL" else ()
    return (
        len(inputs) >= len(needed)
        and all(len(shape) >= axes for shape, axes in zip(inputs, needed, strict=False))
        and all(hasattr(operator.builtinOptions, name) for name in options)
    )


def flops(kind: str, inputs: Sequence[Shape], outputs: Sequence[Shape], operator: Any) -> int | None:
    """Operations of one run, a multiplication and an addition being two; None when the kind is not known.

    Shapes are NHWC, filters as TensorFlow Lite keeps them; positions in the padding count, as everywhere in the field.
    """
    values = sum(math.prod(shape) for shape in outputs)
    if kind in _MOVES:
        return 0
    if kind in _ONE_EACH:
        return values
    if kind in _ONE_PER_INPUT:
        return math.prod(inputs[0])
    if kind in _SEVERAL_EACH:
        return _SEVERAL_EACH[kind] * values
    if kind in _POOLS:
        return values * int(operator.builtinOptions.filterHeight) * int(operator.builtinOptions.filterWidth)
    return _products(kind, inputs, values, operator)


def _products(kind: str, inputs: Sequence[Shape], values: int, operator: Any) -> int | None:
    """Two operations for each multiplication with a weight."""
    if kind == "CONV_2D":  # filter (C_out, kh, kw, C_in of the group)
        return 2 * values * math.prod(inputs[1][1:])
    if kind == "DEPTHWISE_CONV_2D":  # filter (1, kh, kw, C_out)
        return 2 * values * math.prod(inputs[1][1:3])
    if kind == "FULLY_CONNECTED":  # weights (out, in)
        return 2 * values * inputs[1][-1]
    if kind == "TRANSPOSE_CONV":  # output shape, filter (C_out, kh, kw, C_in), input
        return 2 * math.prod(inputs[2]) * math.prod(inputs[1][:3])
    if kind == "CONV_3D":  # filter (kd, kh, kw, C_in, C_out)
        return 2 * values * math.prod(inputs[1][:4])
    if kind == "BATCH_MATMUL":
        return 2 * values * inputs[0][-2 if operator.builtinOptions.adjX else -1]
    return None
