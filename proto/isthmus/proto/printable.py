"""What a peer says, made fit for a log line or an error: no line breaks, no control characters, not too long."""

from __future__ import annotations

SHOWN_CHARACTERS = 200
"""Enough for a reason in one sentence; what is cut ends in an ellipsis."""


def printable(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """`text` on one line of at most `limit` characters, whatever does not print written as its escape.

    Applied twice it changes nothing more, so that a text may pass through several hands.
    """
    head = text[: limit + 1]  # a text of megabytes is not escaped whole
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"
