"""What `isthmus top` shows of an agent or a server. Pure: what was read goes in, what is to be drawn comes out."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isthmus.cli.demo_view import BARS, COLOURS, NAMES
from isthmus.proto.vocabulary import AnswerSource

HISTORY = 60
BAR = 30
SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>[^}]*)\})? (?P<value>[-+0-9.eE]+|NaN|[+-]Inf)")


def counted(page: str) -> dict[str, float]:
    """The samples of a page of metrics (Prometheus text format) by name, labels in braces as they stand."""
    found = {}
    for match in filter(None, map(SAMPLE.fullmatch, page.splitlines())):
        labels = f"{{{match['labels']}}}" if match["labels"] else ""
        found[match["name"] + labels] = float(match["value"])
    return found


def summed(counts: Mapping[str, float], label: str = "") -> dict[str, float]:
    """The samples by name, those of all labels together; or apart by one label, as `name{value}`, without whatever lacks it."""
    sums: dict[str, float] = {}
    for key, value in counts.items():
        name, _, labels = key.partition("{")
        if label:
            if (found := re.search(rf'{label}="([^"]*)"', labels)) is None:
                continue
            name = f"{name}{{{found[1]}}}"
        sums[name] = sums.get(name, 0.0) + value
    return sums


class AgentView:
    """An agent, as its page's state tells."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._latencies: deque[float] = deque(maxlen=HISTORY)

    def shown(self, state: Mapping[str, Any]) -> RenderableType:
        """The screen for one state of `/state.json`."""
        facts, figures, answer = state["facts"], state["figures"], state.get("answer")
        if figures["latency_p50_s"] is not None:
            self._latencies.append(figures["latency_p50_s"])
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", justify="right")
        rows.add_column()
        for name, value in self._lines(facts, figures, answer):
            rows.add_row(name, value)
        fates = _bars({f"{fate}": sum(why.values()) for fate, why in figures["fates"].items()}, figures["captured"])
        points = _bars(dict(figures["points"]), figures["frames"])
        title = f"isthmus agent {facts['client_id']} · {facts['bundle']} · {facts['source']}"
        body = [rows, Text(), Text(f"{figures['captured']} pictures captured, since the start", "dim"), fates]
        body += [Text(), Text("operating points, last minute", "dim"), points]
        return Panel(Group(*body), title=title, subtitle=self._name, border_style="dim")

    def _lines(self, facts: Any, f: Any, answer: Any) -> list[tuple[str, RenderableType]]:
        lines: list[tuple[str, RenderableType]] = []
        if answer is not None:
            source = AnswerSource(answer["source"])
            said = answer["label"] or "no answer"
            lines.append(("answer", Text.assemble((said, "bold"), f"  {answer['confidence']:.0%}")))
            lines.append(
                ("from", Text.assemble((NAMES[source], COLOURS[source]), f"  {answer['reason']}, {answer['point']}"))
            )
            lines.append(("took", f"{_ms(answer['latency_s'])} of {_ms(answer['budget_s'])}"))
            link = "no server" if facts["server"] is None else f"{answer['link']}  {facts['server']}"
            up = answer["goodput_Bps"]
            lines.append(("link", link + (f"  {up * 8e-6:.2g} Mbit/s up" if up is not None else "")))
        lines.append(("on time", f"{f['on_time']:.1%}" if f["on_time"] is not None else "–"))
        lines.append(
            (
                "latency",
                f"p50 {_ms(f['latency_p50_s'])}   p95 {_ms(f['latency_p95_s'])}   p99 {_ms(f['latency_p99_s'])}",
            )
        )
        lines.append(("", Text(_spark(self._latencies), "cyan")))
        lines.append(("answers", f"{f['rate']:.1f} a second, {f['bytes_up_per_s'] * 8e-3:.3g} kbit/s sent"))
        if lost := {name: n for name, n in f["dropped"].items() if n}:
            lines.append(("not shown", ", ".join(f"{name} {n}" for name, n in lost.items())))
        return lines


class ServerView:
    """A server, as its metrics tell: rates are over the time between two looks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._before: tuple[float, Mapping[str, float]] | None = None
        self._rates: deque[float] = deque(maxlen=HISTORY)

    def shown(self, counts: Mapping[str, float], now: float) -> RenderableType:
        """The screen for one reading, taken at `now` (s)."""
        counts, by_outcome = summed(counts), summed(counts, "outcome")
        before_s, before = self._before or (now, counts)
        span_s = now - before_s
        self._before = now, counts

        def rate(name: str) -> float:
            return (counts.get(name, 0.0) - before.get(name, 0.0)) / span_s if span_s > 0 else 0.0

        answered = rate("isthmus_requests_total")
        self._rates.append(answered)
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", justify="right")
        rows.add_column()
        rows.add_row("devices", f"{counts.get('isthmus_streams', 0):.0f}")
        rows.add_row("answered", f"{answered:.1f} a second")
        rows.add_row("", Text(_spark(self._rates), "cyan"))
        rows.add_row("waiting", f"{counts.get('isthmus_pending_requests', 0):.0f} frames")
        rows.add_row("tail", f"{_ms(_mean(counts, before, 'isthmus_tail_duration_seconds'))} a batch")
        rows.add_row("queue", f"{_ms(_mean(counts, before, 'isthmus_queue_duration_seconds'))} a frame")
        rows.add_row("batch", _number(_mean(counts, before, "isthmus_batch_size"), " frames"))
        rows.add_row("received", f"{rate('isthmus_layer_bytes_total') * 8e-6:.3g} Mbit/s")
        outcomes = {key: n for key, n in by_outcome.items() if key.startswith("isthmus_requests_total{")}
        named = {key.partition("{")[2][:-1]: n for key, n in outcomes.items()}
        body = [rows, Text(), Text("frames by outcome, since the start", "dim"), _bars(named, sum(named.values()))]
        if failures := counts.get("isthmus_tail_failures_total"):
            body.append(Text(f"the tail has failed {failures:.0f} times", "bold red"))
        return Panel(Group(*body), title="isthmus server", subtitle=self._name, border_style="dim")


def _mean(counts: Mapping[str, float], before: Mapping[str, float], name: str) -> float | None:
    """The mean of a histogram between two readings; over its whole time where nothing came between."""
    for earlier in (before, {}):
        count = counts.get(f"{name}_count", 0.0) - earlier.get(f"{name}_count", 0.0)
        if count > 0:
            return (counts.get(f"{name}_sum", 0.0) - earlier.get(f"{name}_sum", 0.0)) / count
    return None


def _bars(counts: Mapping[str, float], total: float) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    for name, count in counts.items():
        filled = round(BAR * count / total) if total else 0
        rows.add_row(name, f"[cyan]{'━' * filled}[/][dim]{'─' * (BAR - filled)}[/]", f"{count:.0f}")
    return rows


def _spark(values: deque[float]) -> str:
    most = max(values, default=0.0) or 1.0
    return "".join(BARS[min(7, int(8 * value / most))] for value in values)


def _ms(value_s: float | None) -> str:
    return "–" if value_s is None else f"{value_s * 1000:.0f} ms" if value_s >= 0.01 else f"{value_s * 1000:.1f} ms"


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.1f}{unit}"
