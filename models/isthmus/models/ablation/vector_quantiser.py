"""Residual vector quantisation of the bottleneck: the rival of the uniform grid (SoundStream, Zeghidour et al. 2021).

Each of the H x W positions is a vector of C_b values: a codebook's nearest entry, then a second codebook's nearest entry to
what is left, and so on. Fewer stages are fewer bytes; training drops a random number of the last ones (quantiser dropout).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

STAGES, ENTRIES = 4, 256
"""An index is one byte: a stage takes 64 bytes for 8 x 8 positions."""
DECAY = 0.98
"""What a running mean keeps of itself at each step: it is of the last fifty batches, about."""
RARE = 0.02
"""An entry used less than this share of the average moves to a vector of the present batch."""


def size_bytes(positions: int, stages: int, entries: int = ENTRIES) -> float:
    """The bytes of the indices, which need no entropy coder when entries are used alike."""
    return positions * stages * math.log2(entries) / 8


class Codebooks(nn.Module):
    """STAGES codebooks of ENTRIES vectors, kept at the running mean of what they are chosen for; no gradient."""

    entries: Tensor
    used: Tensor
    """Running mean of how often an entry is chosen."""
    sums: Tensor
    """Running mean of the sum of what an entry is chosen for."""

    def __init__(self, channels: int, generator: torch.Generator, entries: int = ENTRIES) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("entries", torch.zeros(STAGES, entries, channels))
        self.register_buffer("used", torch.zeros(STAGES, entries))
        self.register_buffer("sums", torch.zeros(STAGES, entries, channels))

    @torch.no_grad()
    def prefixes(self, features: Tensor, *, learn: bool = False) -> Tensor:
        """Features (N, C, H, W) as 1 to STAGES stages decode them: (STAGES, N, C, H, W); `learn` moves the codebooks."""
        n, channels, height, width = features.shape
        rest = features.float().permute(0, 2, 3, 1).reshape(-1, channels)
        whole, decoded = rest, []
        for stage in range(STAGES):
            if learn and not self.used[stage].any():
                self._settle(stage, rest)
            chosen = self._nearest(stage, rest)
            found = self.entries[stage, chosen]
            if learn:
                self._learn(stage, rest, chosen)
            rest = rest - found
            decoded.append(whole - rest)
        return torch.stack(decoded).reshape(STAGES, n, height, width, channels).permute(0, 1, 4, 2, 3)

    def dropped_out(self, features: Tensor) -> Tensor:
        """Learn from features and quantise each sample with a random number of stages; the gradient passes straight."""
        prefixes = self.prefixes(features.detach(), learn=True)
        stages = torch.randint(0, STAGES, (len(features),), generator=self.generator)
        return features + (prefixes[stages, torch.arange(len(features))] - features).detach()

    def _nearest(self, stage: int, rest: Tensor) -> Tensor:
        book = self.entries[stage]
        with torch.autocast(rest.device.type, enabled=False):  # neighbours are closer than bfloat16 can tell
            return (book.square().sum(1) - 2 * rest @ book.T).argmin(1)

    def _settle(self, stage: int, rest: Tensor) -> None:
        """Begin a stage at vectors of the batch."""
        entries = len(self.entries[stage])
        self.entries[stage] = rest[torch.randint(len(rest), (entries,), generator=self.generator)]
        self.used[stage] = len(rest) / entries
        self.sums[stage] = self.entries[stage] * self.used[stage, :, None]

    def _learn(self, stage: int, rest: Tensor, chosen: Tensor) -> None:
        entries = len(self.entries[stage])
        self.used[stage].lerp_(torch.bincount(chosen, minlength=entries).float(), 1 - DECAY)
        self.sums[stage].lerp_(torch.zeros_like(self.sums[stage]).index_add_(0, chosen, rest), 1 - DECAY)
        rare = self.used[stage] < RARE * len(rest) / entries
        if rare.any():
            fresh = rest[torch.randint(len(rest), (int(rare.sum()),), generator=self.generator)]
            self.used[stage, rare] = len(rest) / entries
            self.sums[stage, rare] = fresh * (len(rest) / entries)
        self.entries[stage] = self.sums[stage] / self.used[stage, :, None]
