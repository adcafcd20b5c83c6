"""A sink that tells a web address when a class comes into view and when it has gone: one POST of JSON each, tried again."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import urllib.error
import urllib.request
from collections import deque
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import msgspec

from isthmus.device.output.presence import Change, Presence, seen
from isthmus.device.output.sinks import Inbox, Sink
from isthmus.proto.errors import ConfigError
from isthmus.proto.printable import printable
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import Box

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
RETRY_S, LONGEST_S = 0.5, 30.0
"""The pause after a post that failed, doubled with each, up to the second: a receiver that restarts gets all that it missed."""
MOST_WAITING = 256
"""News that wait for a receiver that is away; the oldest go, and are counted."""
CLOSING_S = 1.0


def checked(url: str) -> str:
    """The address of a webhook. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("webhook: expected http://HOST[:PORT]/PATH or https://…")
    return url


class Webhook(Sink):
    """Posts what comes and goes."""

    capacity, pictures = 64, False

    def __init__(self, url: str, device: str, labels: tuple[str, ...], presence: Presence) -> None:
        self._url, self._device, self._labels = checked(url), device, labels
        parts = urlsplit(url)
        self.name = f"webhook {parts.scheme}://{parts.hostname}"  # its path may be a secret
        self._presence = presence
        self._news: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._there, self._all_told = asyncio.Event(), asyncio.Event()
        self._all_told.set()
        self.lost = 0
        """News that were given up: too many waited, or the receiver will never take them."""

    async def run(self, inbox: Inbox) -> None:
        """Post until the inbox ends; what waits then has a second."""
        posting = asyncio.ensure_future(self._post_all())
        loop = asyncio.get_running_loop()
        try:
            while True:
                due_s = self._presence.due_at
                patience_s = None if due_s is None else max(0.0, due_s - loop.time())
                try:
                    answered = await asyncio.wait_for(inbox.next(), patience_s)
                except asyncio.TimeoutError:
                    self._tell(self._presence.step(loop.time()), None)
                    continue
                if answered is None:
                    break
                gone = self._presence.step(loop.time())
                self._tell([*gone, *self._presence.answered(answered.row)], answered.row)
        finally:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_told.wait(), CLOSING_S)
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
            if self.lost or self._news:
                log.warning("%s: %d news were not taken", self.name, self.lost + len(self._news))

    def _tell(self, changes: list[Change], row: FrameRecord | None) -> None:
        for change in changes:
            self.lost += len(self._news) == MOST_WAITING
            self._news.append(msgspec.json.encode(self._told(change, row if change.began else None)))
            self._there.set()
            self._all_told.clear()

    def _told(self, change: Change, row: FrameRecord | None) -> dict[str, Any]:
        told: dict[str, Any] = {
            "device": self._device,
            "event": "came" if change.began else "went",
            "class": self._labels[change.label] if change.label < len(self._labels) else str(change.label),
            "time": _moment(None if row is None else row.captured_unix_s),
        }
        if row is not None:
            told |= {
                "confidence": round(seen(row)[change.label], 4),
                "source": row.source.value,
                "frame_id": row.frame_id,
            }
            found = [_rounded(box) for box in row.boxes or () if box.label == change.label]
            told |= {"boxes": found} if row.boxes is not None else {}
        return told

    async def _post_all(self) -> None:
        pause_s, complained = RETRY_S, False
        while True:
            await self._there.wait()
            news = self._news[0]
            why, again = await asyncio.to_thread(self._post, news)
            if why and not complained:
                log.warning("%s: %s; %s", self.name, why, "tried again until it is taken" if again else "given up")
            complained = bool(why)
            if why and again:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_S)
                continue
            self.lost += bool(why)
            pause_s = RETRY_S
            if self._news and self._news[0] is news:  # not pushed out meanwhile
                self._news.popleft()
            if not self._news:
                self._there.clear()
                self._all_told.set()

    def _post(self, news: bytes) -> tuple[str, bool]:
        """Post once: why it was not taken, if it was not, and whether it may be later."""
        request = urllib.request.Request(self._url, news, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return "", False
        except urllib.error.HTTPError as error:
            with error:
                return f"answers {error.code}", error.code >= 500 or error.code in (408, 425, 429)
        except (OSError, http.client.HTTPException) as error:
            return f"cannot be reached ({printable(str(error))})", True


def _rounded(box: Box) -> dict[str, float]:
    """A box as people read it: to a thousandth of the picture."""
    return {name: round(value, 3) for name, value in msgspec.structs.asdict(box).items() if name != "label"}


def _moment(unix_s: float | None) -> str:
    """A time of day in ISO 8601, UTC; None is now."""
    at = datetime.now(timezone.utc) if unix_s is None else datetime.fromtimestamp(unix_s, timezone.utc)
    return at.isoformat(timespec="milliseconds")
