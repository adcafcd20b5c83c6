"""The tables of `bundle.toml` about pictures: what a stage takes, and what of a picture may cross."""

from __future__ import annotations

from typing import Literal

import msgspec

from isthmus.proto.picture_codec import PictureConfig
from isthmus.proto.tasks.boxes import Boxes


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of `bundle.toml`; an unknown key is an error."""


class Input(Strict, frozen=True, omit_defaults=True):
    """The picture a stage takes: `size` high and wide, (x / 255 - mean) / std per channel, channels in RGB order here.

    A stage that stores integers rounds these values by its own scale: see `litert.Port`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    width: int | None = None
    """The picture's width, where it is not square."""
    colours: Literal["rgb", "bgr", "grey"] = "rgb"
    """The order of its channels; grey has one."""
    layout: Literal["last", "first"] = "last"
    """Where the channels stand: (height, width, channels), or (channels, height, width)."""
    fit: Literal["stretch", "letterbox"] = "stretch"
    """A picture of another shape is stretched, or scaled whole into the middle of grey."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)"""
        return self.size, self.width or self.size

    @property
    def schema(self) -> int:
        """The least that a bundle with it must name."""
        return 1 if (self.colours, self.layout, self.fit) == ("rgb", "last", "stretch") else 4


class TailPart(Strict, frozen=True):
    """One of the files that run one after the other on the server."""

    file: str
    engine: str


class Region(Strict, frozen=True):
    """The part of a picture around all that the device's exit found, as high as wide in shares, so of the picture's own shape."""

    margin: float = 0.15
    """What is left around it, as a share of its longer side."""
    least: float = 0.25
    """No part is smaller than this share of the picture's height and width."""


class View(Strict, frozen=True):
    """The picture at another size, or the part of it where the device's own answer says something is."""

    size: tuple[int, int]
    """(height, width) of what crosses."""
    qualities: tuple[int, ...]
    """Further steps of the ladder, behind those of the views before; finest first."""
    size_fit: tuple[tuple[float, float, float], ...]
    region: Region | None = None
    """The part that crosses; none: the whole picture."""


class PictureLadder(Strict, frozen=True):
    """The picture itself as something that can cross, and the model that then answers: the uncut one, or a larger one."""

    input: Input
    """The picture that the model takes."""
    format: Literal["webp", "jpeg"]
    qualities: tuple[int, ...]
    """Further steps of the ladder, behind those of the features; finest first."""
    size_fit: tuple[tuple[float, float, float], ...]
    """By quality: see `picture_codec.PictureConfig`."""
    tail: tuple[TailPart, ...]
    """Run one after the other; the first part takes the picture."""
    flops: int
    boxes: Boxes | None = None
    """How its boxes are read."""
    size: tuple[int, int] | None = None
    """(height, width) of the picture that crosses, where that is smaller than what the model takes."""
    more: tuple[View, ...] = ()
    """Other sizes, and parts of the picture, in the ladder."""

    @property
    def views(self) -> tuple[View, ...]:
        """All that may cross, in the ladder's order."""
        return View(self.crossing.shape, self.qualities, self.size_fit), *self.more

    @property
    def steps(self) -> tuple[tuple[View, int], ...]:
        """By step of the ladder, behind those of the features: what crosses, at which quality."""
        return tuple((view, quality) for view in self.views for quality in view.qualities)

    def named(self, step: int) -> str:
        """How a step is called: format, quality, and size where it is not the first view's; a region's always."""
        view, quality = self.steps[step]
        if view.region is not None:
            return f"region as {self.format} {quality} of {max(view.size)} pixels"
        size = "" if view.size == self.crossing.shape else f" of {max(view.size)} pixels"
        return f"{self.format} {quality}{size}"

    def taken(self, view: View) -> Input:
        """A view as the picture that crosses."""
        return msgspec.structs.replace(self.input, size=view.size[0], width=view.size[1])

    @property
    def crossing(self) -> Input:
        """The picture that crosses."""
        if self.size is None:
            return self.input
        return msgspec.structs.replace(self.input, size=self.size[0], width=self.size[1])

    @property
    def codecs(self) -> tuple[PictureConfig, ...]:
        """What both halves must know of pictures that cross, view after view."""
        return tuple(PictureConfig(*view.size, self.format, view.qualities, view.size_fit) for view in self.views)
