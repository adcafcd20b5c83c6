"""What may be said of an address. Pure: a password, a user, a token is never in a log, a record or a metric."""

from __future__ import annotations

import re

CREDENTIALS = re.compile(r"(?<=://)[^\s/?#]*@")
"""`user:password@`, up to the last @ before the path: a password may have one in it."""
QUERY = re.compile(r"(?P<begins>[a-z][a-z0-9+.-]*://[^\s?#'\"]*)\?[^\s'\"]*", re.IGNORECASE)
"""Cameras take passwords in the query as well, under names of their own (`pwd`, `loginpas`, `auth`): all of it is left out."""


def public(text: str) -> str:
    """A text with the addresses in it as they may be shown: without credentials, without what follows a question mark."""
    return QUERY.sub(r"\g<begins>?…", CREDENTIALS.sub("", text))
