"""The injected network: the detector's own first layers, a bottleneck, and the detector's other layers behind it.

The bottleneck begins as a transform of small blocks of the map to their principal components (KLT) and back; a branch beside
the transform on each side begins at zero and learns what the transform misses. Tensors are (N, C, H, W).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.injection.teacher import BLOCK, DetectorTeacher, bottleneck_channels
from isthmus.models.training.torch_graph import TorchPart


class Encoder(nn.Module):
    """A map (N, C, H, W) -> features (N, C_b, H / 2, W / 2)."""

    def __init__(self, channels: int, kept: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(channels, kept, BLOCK, BLOCK)
        self.depthwise = nn.Conv2d(channels, channels, 3, BLOCK, 1, groups=channels)
        self.leave = _zero(nn.Conv2d(channels, kept, 1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.transform(x) + self.leave(F.silu(self.depthwise(x)))
        return found


class Decoder(nn.Module):
    """Features (N, C_b, H / 2, W / 2) as they were decoded -> the map (N, C, H, W)."""

    def __init__(self, channels: int, kept: int, inside: int) -> None:
        super().__init__()
        self.transform = nn.ConvTranspose2d(kept, channels, BLOCK, BLOCK)
        self.enter = nn.Conv2d(kept, inside, 3, 1, 1)
        self.first = nn.Conv2d(inside, inside, 3, 1, 1)
        self.second = nn.Conv2d(inside, inside, 3, 1, 1)
        self.leave = _zero(nn.Conv2d(inside, channels * BLOCK**2, 1))

    def forward(self, x: Tensor) -> Tensor:
        inside = F.silu(self.enter(x))
        inside = F.silu(inside + self.second(F.silu(self.first(inside))))
        found: Tensor = self.transform(x) + F.pixel_shuffle(self.leave(inside), BLOCK)
        return found

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates for features of (height, width)."""
        return height * width * sum(p.numel() for p in self.parameters() if p.ndim == 4)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class Injected(nn.Module):
    """Head, bottleneck and tail, as they are trained."""

    def __init__(self, teacher: DetectorTeacher, inside: int) -> None:
        """`inside` are the decoder's channels. Raises ModelError when a layer has no gradient here."""
        super().__init__()
        height, width, channels = teacher.crossing.shape[1:]
        kept = bottleneck_channels(teacher.crossing)
        self.cells, self.kept = (height // BLOCK, width // BLOCK), kept
        begin, cut, own = teacher.graph.inputs[0], teacher.crossing.index, teacher.tuned_from.index
        self.frozen = TorchPart(teacher.part(begin, (own,))) if own != begin else None
        self.tuned = TorchPart(teacher.part(own, (cut,))).requires_grad_(True)
        self.encoder, self.decoder = Encoder(channels, kept), Decoder(channels, kept, inside)
        self.behind = TorchPart(teacher.part(cut, teacher.followed)).requires_grad_(True)

    @torch.no_grad()
    def early(self, x: Tensor) -> Tensor:
        """What the layers that do not learn give for pictures (N, 3, S, S)."""
        found: Tensor = x if self.frozen is None else self.frozen(x)[0]
        return found

    def features(self, early: Tensor) -> Tensor:
        """What crosses, before it is rounded: (N, C_b, H_b, W_b)."""
        found: Tensor = self.encoder(self.tuned(early)[0])
        return found

    def followed(self, rounded: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The rebuilt map at the cut, and the hints and answers behind it."""
        rebuilt: Tensor = self.decoder(rounded)
        return rebuilt, self.behind(rebuilt)

    @torch.no_grad()
    def begin(self, maps: NDArray[np.float32]) -> None:
        """Set the transforms to the principal components of blocks of `maps` (N, C, H, W)."""
        n, channels, height, width = maps.shape
        blocks = maps.reshape(n, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(0, 2, 4, 1, 3, 5)
        flat = blocks.reshape(-1, channels * BLOCK**2).astype(np.float64)
        mean = flat.mean(0)
        centred = flat - mean
        _, directions = np.linalg.eigh(centred.T @ centred / len(flat))
        kept = directions[:, ::-1][:, : self.kept].T  # (C_b, C * 2 * 2)
        weight = torch.from_numpy(np.ascontiguousarray(kept, np.float32)).reshape(self.kept, channels, BLOCK, BLOCK)
        self.encoder.transform.weight.copy_(weight)
        self.decoder.transform.weight.copy_(weight)
        assert self.encoder.transform.bias is not None
        assert self.decoder.transform.bias is not None
        self.encoder.transform.bias.copy_(torch.from_numpy(-(kept @ mean).astype(np.float32)))
        # the bias of a place within a block cannot differ from its neighbours': the branch beside it learns the rest
        self.decoder.transform.bias.copy_(torch.from_numpy(mean.reshape(channels, -1).mean(1).astype(np.float32)))
