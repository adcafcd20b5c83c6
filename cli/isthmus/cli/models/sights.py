"""How pictures cross, as `models split`, `pair` and `compare` are told: qualities, sizes, parts."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from isthmus.models.splitting.ladder import Sight
from isthmus.proto.errors import ConfigError

QUALITIES = typer.Option("90,70,50,30,15,5,1", help="Qualities of pictures that cross, the coder's own, finest first.")
PICTURE_SIZE = typer.Option(
    None, "--picture-size", help="Longer side of pictures that cross [as the model takes them].", min=8
)
SMALLER = typer.Option(None, "--smaller", help="The picture at another size too: PIXELS:QUALITY,…; may be said again.")
REGION = typer.Option(
    None,
    "--region",
    help="The part too where the device's own answer sees something: PIXELS:QUALITY,…; may be said again.",
)
LEAST = 8
"""Pixels: less is no picture."""
FINEST = 100
"""The best quality of JPEG and WebP."""


def quality_ladder(text: str) -> tuple[int, ...]:
    """'90,50,10' as numbers; ConfigError unless they are qualities of a picture, finest first."""
    try:
        ladder = [int(word) for word in text.split(",")]
    except ValueError:
        ladder = []
    if not ladder or ladder != sorted(set(ladder), reverse=True) or not all(1 <= q <= FINEST for q in ladder):
        raise ConfigError(f"--qualities: '{text}' is no ladder; write numbers of 1 to {FINEST}, finest first: 90,50,10")
    return tuple(ladder)


def sights(
    qualities: str, longest: int | None, smaller: Sequence[str] | None, region: Sequence[str] | None
) -> tuple[Sight, ...]:
    """The views of a picture that flags ask for, the whole one first. Raises ConfigError naming the flag."""
    found = [Sight(quality_ladder(qualities), longest)]
    found += [_sight("--smaller", text, region=False) for text in smaller or ()]
    found += [_sight("--region", text, region=True) for text in region or ()]
    return tuple(found)


def _sight(flag: str, text: str, *, region: bool) -> Sight:
    pixels, colon, ladder = text.partition(":")
    if not colon or not pixels.strip().isdecimal() or int(pixels) < LEAST:
        raise ConfigError(f"{flag}: '{text}' is not PIXELS:QUALITY,…; write 256:50,15")
    return Sight(quality_ladder(ladder), int(pixels), region)
