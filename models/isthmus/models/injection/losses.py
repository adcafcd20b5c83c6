"""How far the injected network's answers are from the detector's own: scores as probabilities, places where something is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from isthmus.models.injection.teacher import Answer

PLACES_WEIGHT = 2.0
LEAST = 1.0
"""A batch in which nothing is counts as if so much were there."""


def map_distance(found: Tensor, aim: Tensor) -> Tensor:
    """The mean squared distance of (N, C, H, W) maps, as a share of the aim's variance over places."""
    return (found - aim).square().mean() / aim.var((0, 2, 3)).mean().clamp_min(1e-6)


def answer_distance(answers: Sequence[Answer], found: Sequence[Tensor], aims: Sequence[Tensor]) -> Tensor:
    """Over all levels: the divergence of the scores from the aims', which keeps their size too, and of the places.

    Where one map of a level says whether anything is there at all, its other maps count by as much as that says. Everything
    is a sum over cells, for each thing that is there.
    """
    by_level: dict[tuple[int, ...], list[int]] = {}
    for i, answer in enumerate(answers):
        by_level.setdefault(answer.level, []).append(i)
    total, things = aims[0].new_zeros(()), aims[0].new_zeros(())
    for members in by_level.values():
        there, sure = _there([answers[i] for i in members], [aims[i] for i in members])
        things = things + sure.sum()
        for i in members:
            total = total + _one(answers[i], found[i], aims[i], there, sure)
    return total / things.clamp_min(LEAST * len(aims[0]))


def _shares(answer: Answer, logits: Tensor) -> Tensor:
    return logits.sigmoid() if answer.kind == "sigmoid" else logits.softmax(1)


def _there(answers: Sequence[Answer], aims: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(N, 1, H, W): whether anything is there, 1 where no map says it alone; and how sure the surest class is of it."""
    there = sure = torch.ones_like(aims[0][:, :1])
    for answer, aim in zip(answers, aims, strict=True):
        if answer.kind != "places":
            shares = _shares(answer, aim)
            sure = sure * shares.amax(1, keepdim=True)
            there = there * shares if shares.shape[1] == 1 else there
    return there, sure


def _one(answer: Answer, found: Tensor, aim: Tensor, there: Tensor, sure: Tensor) -> Tensor:
    if answer.kind == "places":
        return (
            PLACES_WEIGHT
            * (sure * F.smooth_l1_loss(found, aim, reduction="none", beta=0.25)).sum()
            / found.shape[1]
            * 4
        )
    weight = there if aim.shape[1] > 1 else torch.ones_like(there)
    if answer.kind == "sigmoid":
        p = aim.sigmoid()
        own = F.binary_cross_entropy_with_logits(aim, p, reduction="none")
        lost = F.binary_cross_entropy_with_logits(found, p, reduction="none") - own
    else:
        p = aim.softmax(1)
        lost = p * (aim.log_softmax(1) - found.log_softmax(1))
    return (weight * lost).sum()
