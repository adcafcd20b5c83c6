"""The processor of a training: a GPU where there is one, and in bfloat16 only on processors that are made for it.

A processor without bfloat16 instructions emulates them: a training step that takes 3 s in float32 took minutes.
"""

from __future__ import annotations

from functools import cache

import torch


def fastest() -> torch.device:
    """The first GPU, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def quick_dtype(device: torch.device) -> torch.dtype:
    """What `device` multiplies matrices of fastest, accurately enough to train: bfloat16, or float32 without it."""
    if device.type == "cuda":
        made_for_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        made_for_it = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if made_for_it else torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products run in `quick_dtype`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=quick_dtype(device) is torch.bfloat16)
