"""What the networks of the published latency tables cost: FLOPs, bytes of memory traffic and operators, from their layers.

The source of `models/isthmus/models/profiles/suite.toml`. A multiply-accumulate is two FLOPs; traffic is every
operator's inputs, outputs and weights once, 4 bytes each; ReLU and batch norm are part of their convolution.

    python benchmarks/published_models.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

VALUE_BYTES = 4


@dataclass
class Walk:
    """One picture on its way through a network: its shape now, and what it has cost so far."""

    size: int
    channels: int = 3
    macs: int = 0
    values: int = 0
    ops: int = 0

    @property
    def tensor(self) -> int:
        """Values of the picture as it is now."""
        return self.size**2 * self.channels

    def conv(self, out: int, k: int, stride: int = 1, groups: int = 1) -> Walk:
        """A convolution with bias; padded to the size that the stride asks for."""
        before = self.tensor
        self.size = (self.size + k // 2 * 2 - k) // stride + 1
        weights = out * (self.channels // groups) * k**2
        self.channels = out
        self.macs += weights * self.size**2
        return self._ran(before + weights + out + self.tensor)

    def depthwise(self, k: int = 3, stride: int = 1) -> Walk:
        """A convolution of each channel by itself."""
        return self.conv(self.channels, k, stride, self.channels)

    def dense(self, out: int) -> Walk:
        """A fully connected layer."""
        self.size, self.channels, before = 1, out, self.tensor
        self.macs += before * out
        return self._ran(before + before * out + 2 * out)

    def elementwise(self, operands: int = 1) -> Walk:
        """A swish, a product or a sum: `operands` tensors in, one out."""
        return self._ran((operands + 1) * self.tensor)

    def pool(self, size: int) -> Walk:
        """Pooled, or resized, to `size`."""
        before, self.size = self.tensor, size
        return self._ran(before + self.tensor)

    def squeeze_excite(self, squeezed: int) -> Walk:
        """Every channel weighed by two small layers (Hu et al. 2018)."""
        size, channels = self.size, self.channels
        self.pool(1).dense(squeezed).dense(channels)
        self.size = size
        return self.elementwise(1)

    def concat(self, more: int) -> Walk:
        """Joined with `more` channels."""
        self.channels += more
        return self._ran(2 * self.tensor)

    def _ran(self, values: int) -> Walk:
        self.values, self.ops = self.values + values, self.ops + 1
        return self


def mobilenet_v1_trunk(x: Walk) -> Walk:
    """Up to the last layer of stride 16 (Howard et al. 2017, table 1)."""
    x.conv(32, 3, 2)
    for out, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5):
        x.depthwise(3, stride).conv(out, 1)
    return x


def mobilenet_v1_end(x: Walk) -> Walk:
    return x.depthwise(3, 2).conv(1024, 1).depthwise().conv(1024, 1)


def mobilenet_v1() -> Walk:
    return mobilenet_v1_end(mobilenet_v1_trunk(Walk(224))).pool(1).dense(1000)


def mobilenet_v2() -> Walk:
    """Sandler et al. 2018, table 2."""
    x = Walk(224).conv(32, 3, 2)
    for expand, out, repeats, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(repeats):
            if expand > 1:
                x.conv(x.channels * expand, 1)
            x.depthwise(3, first if i == 0 else 1).conv(out, 1)
            if i:
                x.elementwise(2)
    return x.conv(1280, 1).pool(1).dense(1000)


def mobilenet_v3() -> Walk:
    """Large (Howard et al. 2019, table 1)."""
    x = Walk(224).conv(16, 3, 2).elementwise()
    for k, expand, out, squeeze, swish, stride in (
        (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
        (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
    ):  # fmt: skip
        same = stride == 1 and out == x.channels
        if expand != x.channels:
            x.conv(expand, 1)
            if swish:
                x.elementwise()
        x.depthwise(k, stride)
        if squeeze:
            x.squeeze_excite(expand // 4)
        if swish:
            x.elementwise()
        x.conv(out, 1)
        if same:
            x.elementwise(2)
    return x.conv(960, 1).elementwise().pool(1).dense(1280).dense(1000)


def efficientnet_b0() -> Walk:
    """Tan and Le 2019, table 1."""
    x = Walk(224).conv(32, 3, 2).elementwise()
    for expand, k, first, out, repeats in (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ):  # fmt: skip
        for i in range(repeats):
            narrow = x.channels
            if expand > 1:
                x.conv(narrow * expand, 1).elementwise()
            x.depthwise(k, first if i == 0 else 1).elementwise().squeeze_excite(narrow // 4).conv(out, 1)
            if i:
                x.elementwise(2)
    return x.conv(1280, 1).elementwise().pool(1).dense(1000)


def resnet(blocks: tuple[int, ...], bottleneck: bool) -> Walk:
    """He et al. 2016, table 1; the bottleneck's stride is in its first convolution, as in Caffe's ResNet-50."""
    x = Walk(224).conv(64, 7, 2).pool(56)
    for i, repeats in enumerate(blocks):
        wide = 64 * 2**i
        for j in range(repeats):
            stride = 2 if i and not j else 1
            if j == 0 and (i or bottleneck):
                shortcut = Walk(x.size, x.channels).conv(wide * (4 if bottleneck else 1), 1, stride)
                x.macs, x.values, x.ops = x.macs + shortcut.macs, x.values + shortcut.values, x.ops + 1
            if bottleneck:
                x.conv(wide, 1, stride).conv(wide, 3).conv(4 * wide, 1)
            else:
                x.conv(wide, 3, stride).conv(wide, 3)
            x.elementwise(2)
    return x.pool(1).dense(1000)


def mobilenet_ssd() -> Walk:
    """MobileNet v1 at 300 pixels with the six SSD branches of its Caffe original, 21 classes."""
    x = mobilenet_v1_trunk(Walk(300))
    heads = [(x.size, x.channels, 3)]
    mobilenet_v1_end(x)
    heads.append((x.size, x.channels, 6))
    for narrow, out in ((256, 512), (128, 256), (128, 256), (64, 128)):
        x.conv(narrow, 1).conv(out, 3, 2)
        heads.append((x.size, x.channels, 6))
    for size, channels, boxes in heads:
        for outputs in (4, 21):
            head = Walk(size, channels).conv(boxes * outputs, 1)
            x.macs, x.values, x.ops = x.macs + head.macs, x.values + head.values, x.ops + 1
    return x


def yolov4_tiny() -> Walk:
    """Wang, Bochkovskiy and Liao 2021: three cross-stage-partial blocks at 416 pixels and two heads of 80 classes."""
    x = Walk(416).conv(32, 3, 2).conv(64, 3, 2)
    kept = 0
    for wide in (64, 128, 256):
        x.conv(wide, 3)
        x.channels = wide // 2  # half of the channels go through the block
        x.conv(wide // 2, 3).conv(wide // 2, 3).concat(wide // 2).conv(wide, 1)
        kept = x.channels  # the route to the finer head
        x.concat(wide).pool(x.size // 2)
    x.conv(512, 3).conv(256, 1)
    trunk = x.channels
    x.conv(512, 3).conv(255, 1)
    x.channels = trunk
    x.conv(128, 1).pool(x.size * 2).concat(kept)
    return x.conv(256, 3).conv(255, 1)


MODELS: dict[str, Callable[[], Walk]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet_b0": efficientnet_b0,
    "resnet18": lambda: resnet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
    "mobilenet_ssd": mobilenet_ssd,
    "yolov4_tiny": yolov4_tiny,
}


def costs() -> dict[str, dict[str, int]]:
    """FLOPs, bytes of traffic and operators of every network."""
    walked = {name: build() for name, build in MODELS.items()}
    return {
        name: {"flops": 2 * w.macs, "traffic_bytes": VALUE_BYTES * w.values, "ops": w.ops} for name, w in walked.items()
    }


if __name__ == "__main__":
    print(json.dumps(costs(), indent=1))
