"""Where frames come from, a small file for each kind, and one line of registration here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from isthmus.device.capture.sources.address import public
from isthmus.device.capture.sources.camera import Camera, Device, Pipeline
from isthmus.device.capture.sources.clips import Clips
from isthmus.device.capture.sources.folder import Folder
from isthmus.device.capture.sources.generated import Generated
from isthmus.device.capture.sources.libcamera import libcamera
from isthmus.device.capture.sources.pipe import StandardInput
from isthmus.device.capture.sources.source import ANYTHING, Picture, Source, Wish
from isthmus.device.capture.sources.stream import SCHEMES, Stream
from isthmus.device.capture.sources.turned import Turned
from isthmus.device.capture.sources.video import Video
from isthmus.device.capture.sources.watched import Watched
from isthmus.proto.errors import SourceError

__all__ = ["KINDS", "Picture", "Source", "Wish", "open_source"]


def _number(kind: str, text: str) -> int:
    if not text.isdecimal():
        raise SourceError(f"{kind}:{text}: expected a whole number after the colon")
    return int(text)


KINDS: dict[str, Callable[[str, Wish], Source]] = {
    "camera": lambda argument, wish: Camera(_number("camera", argument or "0"), wish),
    "clips": lambda argument, _: Clips(_number("clips", argument or "0")),
    "generated": lambda argument, _: Generated(_number("generated", argument or "0")),
    "gst": lambda argument, _: Pipeline(argument),
    "libcamera": lambda argument, wish: libcamera(_number("libcamera", argument or "0"), wish),
    "watch": lambda argument, _: Watched(Path(argument)),
    **dict.fromkeys(SCHEMES, lambda address, _: Stream(address)),
}
"""What comes before a colon. Of an address all of it is passed on, of the others what comes after it."""
SIZED = ("camera", "libcamera")


def open_source(spec: str, labels: tuple[str, ...] = (), wish: Wish = ANYTHING, rotate: int = 0) -> Source:
    """A source by its name: an address, `camera:0`, a folder, a video file; all of them are in docs/sources.md.

    Raises SourceError, which tells what was tried, and never a password.
    """
    source = _opened(spec, labels, wish)
    return Turned(source, rotate) if rotate else source


def _opened(spec: str, labels: tuple[str, ...], wish: Wish) -> Source:
    kind, _, argument = spec.partition(":")
    path = Path(spec)
    device = path.parts[:2] == ("/", "dev")
    if wish.size is not None and not device and kind not in SIZED:
        raise SourceError(f"{public(spec)}: only a camera can be asked for a size; ask a stream by its address")
    if kind in KINDS:
        return KINDS[kind](spec if kind in SCHEMES else argument, wish)
    if spec == "-":
        return StandardInput()
    if device:
        return Device(path, wish)
    if path.is_dir():
        return Folder(path, labels)
    if path.is_file():
        return Video(path)
    if "://" in spec:
        raise SourceError(f"{public(spec)}: not a kind of stream that is read; those are {', '.join(SCHEMES)}")
    raise SourceError(
        f"{spec}: no such file or folder; a source is a folder, a video, an address (rtsp://, http://), /dev/videoN, camera:N, "
        "libcamera:N, watch:FOLDER, gst:PIPELINE, clips:N, - or generated:SEED"
    )
