"""The page of the wire: each message of `edge.proto` with its fields, numbers and comments."""

from __future__ import annotations

import re

from isthmus.proto.codec import CODEC_VERSION
from reference_pages.structs import prose, source, table

PROTO = "proto/isthmus/proto/edge.proto"
HEAD = """# Wire

gRPC, one stream a device. The first message each way is `Hello` and `Welcome`; a pair whose bundles differ refuses each other.
Budgets are spans, so that the clocks of the two machines are never compared. What a half does not know, it ignores. The
codec's version is {version}. What stands in a layer's payload: [how features cross](../codec.md).

"""
FIELD = re.compile(r"^ +(?:(repeated) )?([\w.]+) (\w+) = (\d+);[ \t]*(?://[ \t]*(.*))?", re.MULTILINE)


def page() -> str:
    """The whole page: the service, then every message in the file's order."""
    text = source(PROTO)
    service = re.search(r"^service .*?^}", text, re.DOTALL | re.MULTILINE)
    assert service is not None
    messages = re.findall(r"((?:^//[^\n]*\n)*)^message (\w+) \{(?:\}|\n(.*?)^\})", text, re.DOTALL | re.MULTILINE)
    shown = "".join(_message(name, body, comment) for comment, name, body in messages)
    return f"{HEAD.format(version=CODEC_VERSION)}```proto\n{service[0]}\n```\n\n{shown}"


def _message(name: str, body: str, comment: str) -> str:
    told = " ".join(re.findall(r"//\s*(.*)", comment))
    rows = [
        (number, f"`{field}`", f"`{' '.join(word for word in (many, kind) if word)}`", prose(why.strip()))
        for many, kind, field, number, why in FIELD.findall(body)
    ]
    values = re.findall(r"^\s*(\w+) = (\d+);", body, re.MULTILINE)
    one_of = "One of these, `load` beside it where there is one:\n\n" if "oneof" in body else ""
    fields = table(("no.", "field", "type", "meaning"), rows) if rows else "No fields.\n"
    names = f"\nIts enumeration: {', '.join(f'{number} `{value}`' for value, number in values)}.\n" if values else ""
    return f"## {name}\n\n{told}\n\n{one_of}{fields}{names}\n"
