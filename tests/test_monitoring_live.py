"""Both halves as they run: every metric has its row in the documents, and every query of the dashboard has its metrics."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.device.monitoring.metrics import AgentMetrics
from isthmus.device.sensors import Reading

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "examples/monitoring/dashboard.json"
ISTHMUS = [sys.executable, "-m", "isthmus.cli"]
WARM = Reading(temperature_C=61.5, clock_share=0.5, throttling=("frequency capped",), power_W=4.5)
FROM_A_FOLDER = {"isthmus_bundles": {"state"}}
"""What only a server of a folder has: see tests/edge_server/repository."""
Labels = dict[str, set[str]]


def families(page: str) -> Labels:
    """Every metric by the name that queries and documents call it, and its labels."""
    found: Labels = {}
    for family in text_string_to_metric_families(page):
        if family.name.endswith("_created"):
            continue  # the library's, beside every counter: since when it counts
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.setdefault(name, set()).update(*(sample.labels.keys() for sample in family.samples), set())
        found[name] -= {"le"}
    return found


def page_of(port: int) -> str:
    return str(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """What a server and its agent show once frames went both ways; and the folder of their logs."""
    logs = tmp_path_factory.mktemp("logs")
    ports = [free_port(), free_port()]
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        with (logs / f"{name}.log").open("w") as log:
            command = [*ISTHMUS, "--log-format", "json", "-v", *arguments]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True))
        return started[-1]

    try:
        server = start("server", "serve", "--insecure", "--listen", "127.0.0.1:0", "--metrics", str(ports[0]))
        assert server.stdout is not None
        where = next(word.rstrip(",") for word in server.stdout.readline().split() if ":" in word)
        agent = start(
            "agent", "agent", "--insecure", "--server", where, "--fps", "15", "--deadline", "500ms",
            "--policy", "always-offload", "--client-id", "porch", "--metrics", str(ports[1]),
        )  # fmt: skip
        assert agent.stdout is not None
        answered = 0
        for line in agent.stdout:
            answered += json.loads(line)["source"] == "server"
            if answered == 5:
                break
        yield page_of(ports[0]), page_of(ports[1]), logs
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.communicate(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shown(pages: tuple[str, str, Path]) -> Labels:
    """All that both halves show, on a machine that shows its heat, from a folder of bundles."""
    machine = AgentMetrics({"bundle": "signs"}, sensors=lambda: WARM)
    return families(machine.page()[0].decode()) | FROM_A_FOLDER | families(pages[0]) | families(pages[1])


def test_the_documents_have_a_row_for_every_metric_and_none_that_is_not_there(pages: Any) -> None:
    text = (ROOT / "docs/monitoring.md").read_text()
    rows = re.findall(r"^\| `(isthmus_\w+)` \| (\w+) \| ([\w, ]*) ?\|", text, re.MULTILINE)
    documented = {name: set(labels.replace(",", " ").split()) for name, _, labels in rows}
    process = set(re.findall(r"`(process_\w+)`", text))
    found = shown(pages)
    assert documented.keys() | process == found.keys()
    for name, labels in documented.items():
        if found[name]:  # one that has counted nothing yet shows no labels
            assert labels == found[name], name


def test_every_query_of_the_dashboard_asks_for_what_is_there(pages: Any) -> None:
    found, asked = shown(pages), set[str]()
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            names = {
                re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:isthmus|process)_\w+", query)
            }
            assert names, f"{panel['title']}: {query}"
            assert names <= found.keys(), panel["title"]
            labels = set(re.findall(r"(\w+)=~?\"", query))
            labels |= {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
            known = {label for name in names for label in found[name]} | {"le", "instance", "job"}
            assert labels <= known, f"{panel['title']}: {labels - known}"
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert legend <= known, panel["title"]
            asked |= names
    own = {name for name in found if name.startswith("isthmus_") and not name.endswith("_info")}
    assert own - asked <= {"isthmus_layers_total", "isthmus_bundles", "isthmus_agent_sink_dropped_total"}
    for variable in dashboard["templating"]["list"][1:]:
        metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[0]
        assert label in found[metric] | {"instance"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is not installed")
def test_prometheus_has_nothing_to_say_against_either_page(pages: Any) -> None:
    for page in pages[:2]:
        done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is not installed")
def test_prometheus_understands_the_example(tmp_path: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "config", str(ROOT / "examples/monitoring/prometheus.yml")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rules = [
        {"record": f"panel:{panel['id']}:{target['refId']}", "expr": expanded(target["expr"])}
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def expanded(expression: str) -> str:
    """A query as Grafana sends it."""
    return re.sub(r"\$(bundle|device)", ".*", expression.replace("$__rate_interval", "20s"))


def test_the_device_and_its_answers_are_named(pages: Any) -> None:
    server, agent, _ = pages
    assert re.search(r'isthmus_requests_total\{bundle="signs",device="porch",outcome="result"\} [1-9]', server)
    assert re.search(r'isthmus_agent_answers_total\{on_time="\w+",reason="returned",source="server"\} [1-9]', agent)
    assert "isthmus_ready 1.0" in server


def test_the_logs_of_both_halves_are_json_line_by_line(pages: Any) -> None:
    ends_s = time.monotonic() + 20
    logs: Path = pages[2]
    while "connected" not in (logs / "agent.log").read_text() and time.monotonic() < ends_s:
        time.sleep(0.1)
    for half, said in (("server", "'porch' at 127.0.0.1"), ("agent", "connected")):
        lines = (logs / f"{half}.log").read_text().splitlines()
        lines = [
            line for line in lines if line and not line.startswith("INFO: Created TensorFlow Lite")
        ]  # LiteRT's own
        told = [json.loads(line) for line in lines]
        assert all({"time_s", "level", "logger", "message"} <= line.keys() for line in told)
        assert any(said in line["message"] for line in told), half
