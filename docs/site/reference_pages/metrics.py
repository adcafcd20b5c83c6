"""The page of metrics: every name that device and server show to Prometheus, with its kind, labels and meaning.

The names are read where the code declares them: calls whose first word is a metric's name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reference_pages.structs import ROOT, prose, table

HALVES = {
    "The server's": ("edge_server/isthmus/edge_server", "`isthmus serve --metrics HOST:PORT`, at `/metrics`"),
    "The device's": (
        "device/isthmus/device",
        "`isthmus agent --metrics HOST:PORT`, at `/metrics`, and on its live page",
    ),
}
KINDS = {"Counter", "Gauge", "Histogram", "Info", "counter", "gauge", "histogram"}


@dataclass(frozen=True)
class Metric:
    """One metric as it is declared."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def page() -> str:
    """The whole page, half after half."""
    head = "# Metrics\n\nIn Prometheus's text format. Counters begin at 0 when the process does. Both halves show `process_…`\n"
    head += "too: memory, processor time, files. What they tell together: [monitoring](../monitoring.md).\n\n"
    return head + "\n".join(_half(title, *where) for title, where in HALVES.items())


def _half(title: str, folder: str, where: str) -> str:
    rows = [
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), prose(one.meaning))
        for one in declared(folder)
    ]
    return f"## {title}\n\n{where}.\n\n{table(('name', 'kind', 'labels', 'meaning'), rows)}"


def declared(folder: str) -> list[Metric]:
    """What the files below a folder of the repository declare, in their order; each name once."""
    found: dict[str, Metric] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for metric in _of_file(path):
            found.setdefault(metric.name, metric)
    return list(found.values())


def _of_file(path: Path) -> Iterator[Metric]:
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        first = _words(node.args[0]) if isinstance(node, ast.Call) and node.args else []
        if isinstance(node, ast.Call) and first and re.fullmatch(r"isthmus_[a-z_]+", first[0]):
            yield from _metric(first[0], node, text)


def _metric(name: str, call: ast.Call, text: str) -> Iterator[Metric]:
    """The metric that a call declares; none where nothing says what it means."""
    called = ast.unparse(call.func).rpartition(".")[2].strip("_").removesuffix("MetricFamily").capitalize()
    arguments = [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "labels")]
    said = [word for argument in arguments for word in _said(argument, call.lineno, text)]
    meanings = [word for word in said if " " in word or word[:1].isupper()]
    if not meanings:
        return
    kind = next((word for word in (called, *said) if word in KINDS), "gauge").lower()
    labels = [word for word in said if word not in meanings and word not in KINDS]
    written = "".join(re.findall(rf"{name}\{{\{{(.*?)\}}\}}", text))  # as Prometheus reads it, in an f-string
    yield Metric(name, kind, tuple(dict.fromkeys([*labels, *re.findall(r"(\w+)=", written)])), meanings[0])


def _said(node: ast.expr, line: int, text: str) -> list[str]:
    """The strings of an argument; of a name, what was last given to it above `line`."""
    if not isinstance(node, ast.Name):
        return _words(node)
    given = re.findall(rf'^ +{node.id} = "([^"]*)"$', "\n".join(text.splitlines()[: line - 1]), re.MULTILINE)
    return given[-1:]


def _words(node: ast.expr) -> list[str]:
    """The strings that an expression spells out."""
    constants = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
    return [one.value for one in constants if isinstance(one, ast.Constant) and isinstance(one.value, str)]
