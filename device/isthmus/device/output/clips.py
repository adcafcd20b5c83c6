"""A sink that keeps what matters: a snapshot when a class comes into view, and a clip from a little before until a little after.

Files are named by the time of day and what came: `20261130-120553-person.jpg` and `.mp4`. The oldest of them are deleted where
they would take more than they may; nothing else in the folder is touched.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from datetime import datetime
from pathlib import Path

from isthmus.device.output.drawing import Pixels
from isthmus.device.output.overlay import Film
from isthmus.device.output.presence import Presence
from isthmus.device.output.shown import from_jpeg, jpeg, with_answer
from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink
from isthmus.proto.errors import DataError

log = logging.getLogger(__name__)

BEFORE_S, AFTER_S, LONGEST_S = 3.0, 3.0, 60.0
"""A clip begins so long before something came and ends so long after all has gone, or after the third at the latest."""
_OURS = re.compile(r"\d{8}-\d{6}(-\d+)?-[\w-]+\.(jpg|mp4)")


class Clips(Sink):
    """Keeps snapshots and clips in `folder`, `total_bytes` at most."""

    capacity, pictures = 16, True

    def __init__(self, folder: Path, total_bytes: int, fps: float, labels: tuple[str, ...], presence: Presence) -> None:
        self.name, self._folder, self._total_bytes = f"clips {folder}", folder, total_bytes
        self._fps, self._labels = fps, labels
        self._presence = presence
        self._before: deque[tuple[float, bytes]] = deque()
        """Times of capture and drawn pictures, as JPEG, of the last seconds."""
        self._film: Film | None = None
        self._began_s = self._seen_s = 0.0

    async def open(self) -> None:
        """Make the folder. Raises DataError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self._folder}: {error.strerror}; name another folder for clips") from error

    async def run(self, inbox: Inbox) -> None:
        """Draw and write in a thread, one picture after the other."""
        try:
            async for answered in inbox:
                await asyncio.to_thread(self._take, answered)
        finally:
            await asyncio.to_thread(self._end)

    def _take(self, answered: AnsweredPicture) -> None:
        row = answered.row
        self._presence.step(row.answered_s)
        came = [change.label for change in self._presence.answered(row)]
        if (pixels := with_answer(answered, self._labels)) is None:
            return
        if self._presence.labels:
            self._seen_s = row.captured_s
        if self._film is None and came:
            self._begin(came[0], pixels, row.captured_s)
        if self._film is None:
            self._remember(pixels, row.captured_s)
            return
        self._film.add(pixels, row.captured_s)
        if row.captured_s > min(self._seen_s + AFTER_S, self._began_s + LONGEST_S):
            self._end()

    def _remember(self, pixels: Pixels, at_s: float) -> None:
        self._before.append((at_s, jpeg(pixels)))
        while self._before[0][0] < at_s - BEFORE_S:
            self._before.popleft()

    def _begin(self, label: int, pixels: Pixels, at_s: float) -> None:
        self._make_room()
        stem = self._name(self._labels[label] if label < len(self._labels) else str(label))
        (self._folder / f"{stem}.jpg").write_bytes(jpeg(pixels))
        self._film, self._began_s = Film(self._folder / f"{stem}.mp4", self._fps), at_s
        while self._before:
            before_s, file = self._before.popleft()
            self._film.add(from_jpeg(file), before_s)

    def _name(self, what: str) -> str:
        stem, word = datetime.now().strftime("%Y%m%d-%H%M%S"), re.sub(r"\W+", "_", what)[:40]
        names = (f"{stem}{more}-{word}" for more in ("", *(f"-{i}" for i in range(2, 1000))))
        return next(name for name in names if not (self._folder / f"{name}.jpg").exists())

    def _end(self) -> None:
        if self._film is not None:
            self._film.close()
            self._film = None
            self._make_room()

    def _make_room(self) -> None:
        """Delete the oldest of ours until what is left is no more than may be."""
        ours = sorted(path for path in self._folder.iterdir() if _OURS.fullmatch(path.name))
        sizes = [path.stat().st_size for path in ours]
        for path, size in zip(ours, list(sizes), strict=True):
            if sum(sizes) <= self._total_bytes:
                break
            path.unlink()
            sizes.remove(size)
