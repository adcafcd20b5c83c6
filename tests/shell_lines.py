"""The command lines that the documents show, and why some of them are not run by the tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))])
COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.|isthmus|make|pip|python3?|git|cd|sudo|ssh|scp|uv|mkdir|gst-launch-1\.0|rpicam-vid)\s"
)
"""What a line of shell begins with."""

NOT_RUN = {
    "another machine, or root": r"REPOSITORY|^ssh |\bsudo\b|^docker |^git pull|^cd |/etc/isthmus",
    "the environment, which a test has": r"^\. \.venv|^pip |^uv |^make |^python3? -m (?:venv|build)",
    "a camera": r"/dev/video|libcamera|rpicam|rtsp://|nvarguscamera|camera:|driveway\.mp4",
    "another program beside it: a broker, Frigate, a browser": r"ISTHMUS_AGENT_MQTT|frigate|world\.browser|tritonclient",
    "a form, where somebody's own names go": r"\b(?:FILE|FOLDER|BUNDLE|NAME|OLDER|IN OUT|RUNS)\b| \.\.\.",
    "training: up to hours, and torch": r"models (?:train|export|ablate|distill|prune|quantize|filter|deltas)\b",
    "the machine itself, and what is wrong with it": r"isthmus doctor",
    "a benchmark: minutes": r"^python benchmarks|^python examples",
    "published models, pictures and clips": r"\.tflite|bundles/|\bcaltech\b|street/|models clips|--filter filters",
    "an idle machine, for a minute": r"bench (?:device|serve|server)\b|mine\.toml|my-server\.toml|edge\.toml",
    "a minute and more": r"isthmus (?:demo|sweep|traces answer|traces record)|--frames 900|real\.jsonl"
    r"|--scenario (?:lte|wifi|rolling|lost)-",
    "Ray, which takes long to start": r"(?:--engine|--on) ray",
    "a folder that an earlier version made": r"^mkdir certs/ca|revoke \"isthmus device\"",
    "several machines, and their keys": r"edge1:|/srv/|keys/|--announce|--discover",
    "an agent that it looks at": r"isthmus top(?! 127\.0\.0\.1:9464$)",
}
"""Why a line is not run, and the lines of which that is true. Their verbs and flags are checked all the same (test_docs.py)."""


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, its text, and the file that it is shown as, if any."""

    page: str
    line: int
    language: str
    text: str
    file: str | None


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        named = re.findall(r"\b[Aa]s `([\w.]+\.(?:py|csv|toml))`", before)
        inside = re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
        yield Block(page, text[: found.start()].count("\n") + 1, found[2], inside, named[-1] if named else None)


def is_shell(block: Block) -> bool:
    """Whether a block shows commands: other blocks show files, formulas or what was printed."""
    return block.language in ("", "sh") and COMMAND.match(block.text) is not None


def lines(block: Block) -> list[str]:
    """The commands of a block, continued lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", block.text).splitlines()
    return [bare for line in joined if (bare := re.sub(r"(^|\s)#.*", "", line).strip())]


def why_not(line: str) -> str | None:
    """Why a line is not run; None where it is."""
    return next((why for why, which in NOT_RUN.items() if re.search(which, line)), None)
