"""What a detector's training minimises: how sure and how right its cells are, and how far the exit is from the server."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from isthmus.models.detection.network import BOX

SURENESS, PLACE = 4.0, 2.0
"""Weights of the two parts of the loss."""
LARGEST = 5.0
"""Of the logarithm of a box's side in cells: e^5 cells are wider than any picture here."""


def corners(answer: Tensor) -> Tensor:
    """A map's boxes (N, 4, h, w), left, top, right, bottom in cells: centres are told from the cell's own middle."""
    _, _, rows, columns = answer.shape
    y = torch.arange(rows, device=answer.device, dtype=torch.float32).reshape(1, rows, 1) + 0.5
    x = torch.arange(columns, device=answer.device, dtype=torch.float32).reshape(1, 1, columns) + 0.5
    box = answer[:, -BOX:].float()
    cx, cy = box[:, 0] + x, box[:, 1] + y
    w, h = box[:, 2].clamp(-LARGEST, LARGEST).exp() / 2, box[:, 3].clamp(-LARGEST, LARGEST).exp() / 2
    return torch.stack([cx - w, cy - h, cx + w, cy + h], 1)


def generalised_overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of boxes (P, 4) pair by pair, and its generalisation (Rezatofighi et al. 2019)."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp_min(0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    iou = shared / union.clamp_min(1e-6)
    return iou, iou - (hull - union) / hull.clamp_min(1e-6)


def detection(answer: Tensor, label: Tensor, place: Tensor) -> Tensor:
    """The loss of maps (N, K + 4, h, w) against classes (N, h, w), -1 for nothing, and boxes (N, 4, h, w) in cells.

    A class is to be as sure as its box is right: quality focal loss (Li et al. 2020).
    """
    logits = answer[:, :-BOX].float()
    n, rows, columns = (label >= 0).nonzero(as_tuple=True)
    count = max(1, len(n))
    found = corners(answer)[n, :, rows, columns]
    iou, generalised = generalised_overlap(found, place[n, :, rows, columns])
    wanted = torch.zeros_like(logits)
    wanted[n, label[n, rows, columns], rows, columns] = iou.detach().clamp(0, 1)
    return (SURENESS * focal(logits, wanted) + PLACE * (1 - generalised).sum()) / count


def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy to shares `wanted`, summed, weighted by the squared distance from them."""
    weight = (logits.sigmoid() - wanted).square()
    return (weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()


def distillation(student: Tensor, teacher: Tensor, things: int) -> Tensor:
    """The distance of the exit's classes from the server's, for each of so many cells that show things."""
    wanted = teacher[:, :-BOX].detach().float().sigmoid()
    return SURENESS * focal(student[:, :-BOX].float(), wanted) / max(1, things)
