"""As much of HTTP/1.1 as pages for a few viewers need: one request a connection, within a time and a size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

REQUEST_S = 5.0
"""A request that is not whole after so long is none."""
REQUEST_BYTES = 8192
PHRASES = {200: "OK", 204: "No Content", 303: "See Other", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
           405: "Method Not Allowed", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
SAFE = (
    "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Content-Security-Policy: default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'\r\n"
)
"""Of every answer: nothing comes from elsewhere, and no other page may show or read this one."""


@dataclass(frozen=True)
class Request:
    """What is asked for; the names of headers in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The request; None where none comes, or none that can be understood."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_S)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    try:
        target = urlsplit(words[1])
    except ValueError:
        return None
    query = {name: values[-1] for name, values in parse_qs(target.query).items()}
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    return Request(words[0], target.path, query, headers)


def answer(status: int, content: bytes = b"", kind: str = "text/plain; charset=utf-8", more: str = "") -> bytes:
    """A whole answer, after which the connection is closed; `more` are further headers, each with its line's end."""
    return (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"Connection: close\r\n{SAFE}{more}\r\n"
    ).encode() + content


def stream_head() -> bytes:
    """The beginning of a stream of events (HTML standard, server-sent events)."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n{SAFE}\r\n".encode()


def event(name: str, data: bytes) -> bytes:
    """One event; `data` has no line's end in it, as JSON has none."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
