"""What stands below every command's help: commands to begin with, and where more is written."""

from __future__ import annotations

EVERYWHERE = "With every command: `-h`, `-v`, `--log-format json`."

EXAMPLES: dict[str, tuple[str, ...]] = {
    "agent": (
        "isthmus agent --source camera:0 --server edge.local:50551 --certs keys --deadline 100ms",
        "isthmus agent --source camera:0 --server edge1:50551,edge2:50551 --certs keys",
        "isthmus agent --bundle signs --source generated:0 --frames 20",
        "isthmus agent --source camera:0 --server edge.local:50551 --certs keys --traces http://collector:4318",
    ),
    "serve": (
        "isthmus serve --bundle signs --listen 0.0.0.0:50551 --certs keys/server --metrics 127.0.0.1:9464",
        "isthmus serve --bundle signs --insecure",
        "isthmus serve --models /srv/bundles --listen 0.0.0.0:50551 --certs keys/server --push-from laptop",
        "isthmus serve --bundle signs --listen 0.0.0.0:50551 --certs keys/server --announce",
        "isthmus serve --bundle signs --insecure --traces http://collector:4318 --traces-share 0.01",
    ),
    "top": ("isthmus top 127.0.0.1:8070", "isthmus top 127.0.0.1:9464 --once"),
    "frigate": (
        "isthmus frigate --bundle street --listen ipc:///tmp/isthmus.sock --server edge.local:50551 --certs keys",
    ),
    "relay": ("isthmus relay --to 127.0.0.1:50551 --listen 127.0.0.1:50552 --trace demo",),
    "shape": ("isthmus shape --trace demo -- isthmus agent --server {server} --insecure --frames 100",),
    "demo": ("isthmus demo", "isthmus demo --duration 20s --policy always-offload"),
    "emulate": ("isthmus emulate --policy all", "isthmus emulate --trace demo --profile pi-zero-2w --sessions 20"),
    "sweep": ("isthmus sweep examples/narrow-links.toml",),
    "report": ("isthmus report run.jsonl", "isthmus report runs --format json"),
    "doctor": ("isthmus doctor", "isthmus doctor --format json"),
    "certs": ("isthmus certs init keys --host edge.local", "isthmus certs add-device gate --certs keys"),
    "config": ("isthmus config show agent --config agent.toml", "isthmus config schema server > server.schema.json"),
    "service": (
        "isthmus service install agent --config agent.toml --certs device",
        "isthmus service show server",
    ),
    "models": (
        "isthmus models list",
        "isthmus models split model.tflite --pictures pictures --out bundle",
        "isthmus models push bundle edge.local:50551 --certs keys/devices/laptop",
    ),
    "traces": ("isthmus traces list", "isthmus traces convert mine.csv mine.up --columns up_mbps=0.001*UL_kbps"),
    "bench": (
        "isthmus bench profiles",
        "isthmus bench device --out mine.toml",
        "isthmus bench serve --bundle signs --fps 15 --deadline 150ms",
    ),
}
PAGES = {
    "agent": "docs/sources.md",
    "serve": "docs/server.md",
    "frigate": "docs/frigate.md",
    "relay": "docs/links.md",
    "shape": "docs/links.md",
    "emulate": "docs/emulation.md",
    "sweep": "docs/emulation.md",
    "report": "docs/reports.md",
    "certs": "docs/certificates.md",
    "service": "docs/service.md",
    "doctor": "docs/doctor.md",
    "models": "docs/bring-your-own-model.md",
    "traces": "docs/links.md",
    "bench": "docs/profiles.md",
}
"""Where more is written; of the others, in the README."""


def epilog(command: str) -> str:
    """The lines below a command's help: each a paragraph, as markdown wants it."""
    examples = (f"`{line}`" for line in EXAMPLES[command])
    return "\n\n".join(["For example:", *examples, f"More: `{PAGES.get(command, 'README.md')}`. {EVERYWHERE}"])
