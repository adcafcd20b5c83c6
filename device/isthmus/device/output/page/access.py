"""Who may look at the page. Pure.

On a loopback address everybody of this machine may, and a request must name such an address as its host: a web page from
elsewhere, whose name leads here, is refused. On any other address a token is needed.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

COOKIE = "isthmus_page"


def is_loopback(host: str) -> bool:
    """Whether an address leads to this machine alone."""
    name = host.strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Access:
    """The rule of one page."""

    def __init__(self, token: str | None) -> None:
        """Without a token the page is one for this machine."""
        self.token = token

    def granted(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers (their names in lower case) may look."""
        if self.token is None:
            return is_loopback(_host(headers.get("host", "")))
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return (scheme.lower() == "bearer" and self.fits(given.strip())) or self.fits(_cookie(headers))

    def fits(self, given: str) -> bool:
        """Whether a token is the right one; it takes as long for a wrong one."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def _host(text: str) -> str:
    """The name in a Host header, without its port."""
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


def _cookie(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
