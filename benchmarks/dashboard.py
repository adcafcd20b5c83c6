"""The dashboard's panels as a picture: a pair with a link that changes, a real Prometheus, and the dashboard's own queries.

    python benchmarks/dashboard.py --seconds 120 --out docs/images/dashboard.png

Needs the program `prometheus`. Grafana is not needed: what it would ask, this asks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DASHBOARD = Path(__file__).parents[1] / "examples/monitoring/dashboard.json"
ISTHMUS = [sys.executable, "-m", "isthmus.cli"]
COLUMNS = 3
WINDOW = "10s"
"""What `$__rate_interval` stands for here; Grafana takes four scrape intervals."""
FACTORS = {"s": (1e3, "ms"), "percentunit": (100, "%"), "bytes": (1e-6, "MB"), "Bps": (8e-6, "Mbit/s"),
           "bps": (1e-3, "kbit/s"), "reqps": (1, "1/s"), "short": (1, ""), "celsius": (1, "°C, W")}  # fmt: skip


@contextlib.contextmanager
def running(*command: str, quiet: bool = True) -> Iterator[subprocess.Popen[str]]:
    out = subprocess.DEVNULL if quiet else subprocess.PIPE
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return next(word.rstrip(",") for word in process.stdout.readline().split() if re.search(r":\d+,?$", word))


def asked(base: str, path: str, **query: object) -> Any:
    url = f"{base}{path}?{urllib.parse.urlencode({k: str(v) for k, v in query.items()})}"
    return json.load(urllib.request.urlopen(url, timeout=10))["data"]["result"]


def expanded(expression: str) -> str:
    return re.sub(r"\$(bundle|device)", ".*", expression.replace("$__rate_interval", WINDOW))


def panels() -> list[dict[str, Any]]:
    """Those that are drawn, each with the row that it stands in."""
    found, row = [], ""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            found.append(panel | {"row": row})
    return found


def named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend)


def draw(axes: Axes, panel: dict[str, Any], base: str, start_s: float, end_s: float) -> int:
    factor, unit = FACTORS[panel["fieldConfig"]["defaults"]["unit"]]
    lines = 0
    for target in panel["targets"]:
        series = asked(base, "/api/v1/query_range", query=expanded(target["expr"]), start=start_s, end=end_s, step=1)
        for found in series:
            points = [(float(at) - start_s, factor * float(value)) for at, value in found["values"] if value != "NaN"]
            if points:
                axes.plot(*zip(*points, strict=True), lw=1, label=named(target["legendFormat"], found["metric"]))
                lines += 1
    axes.set_title(f"{panel['row']}: {panel['title']}" + (f", {unit}" if unit else ""), fontsize=8, loc="left")
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    axes.tick_params(labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        axes.legend(fontsize=5, frameon=False, ncols=2 if lines > 4 else 1, loc="best")
    else:
        axes.text(0.5, 0.5, "nothing to show", ha="center", transform=axes.transAxes, fontsize=7, color="#888888")
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=120)
    arguments.add_argument("--out", type=Path, default=Path("docs/images/dashboard.png"))
    asked_for = arguments.parse_args()
    with contextlib.ExitStack() as stack:
        ports = {"server": 9464, "porch": 9465, "gate": 9466, "prometheus": 9469}
        serve = ("serve", "--insecure", "--listen", "127.0.0.1:0", "--metrics", f"127.0.0.1:{ports['server']}")
        server = address(stack.enter_context(running(*ISTHMUS, *serve, quiet=False)))
        relay = ("relay", "--listen", "127.0.0.1:0", "--to", server, "--trace", "demo")
        near = address(stack.enter_context(running(*ISTHMUS, *relay, quiet=False)))
        for name, where, fps in (("porch", near, "10"), ("gate", server, "5")):
            agent = ["agent", "--insecure", "--server", where, "--client-id", name, "--fps", fps, "--deadline", "200ms"]
            stack.enter_context(running(*ISTHMUS, *agent, "--metrics", f"127.0.0.1:{ports[name]}"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = {"isthmus-servers": ["server"], "isthmus-agents": ["porch", "gate"]}
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{ports[name]}" for name in names]}]}
            for job, names in targets.items()
        ]
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        base = f"http://127.0.0.1:{ports['prometheus']}"
        stack.enter_context(
            running(
                "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
            )
        )  # fmt: skip
        start_s = time.time() + 10
        time.sleep(10 + asked_for.seconds)
        shown = panels()
        rows = -(-len(shown) // COLUMNS)
        figure = Figure((12, 1.75 * rows), layout="constrained")
        empty = []
        for axes, panel in zip(figure.subplots(rows, COLUMNS).ravel(), shown, strict=False):
            if draw(axes, panel, base, start_s, time.time()) == 0:
                empty.append(panel["title"])
        for axes in figure.axes[len(shown) :]:
            axes.set_axis_off()
        figure.savefig(asked_for.out, dpi=110)
        print(f"{asked_for.out}: {len(shown)} panels; nothing to show in: {', '.join(empty) or 'none'}")


if __name__ == "__main__":
    main()
