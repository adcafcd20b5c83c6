"""Pages that are files of the repository elsewhere: the cards of the shipped models, contributing, the changelog."""

from __future__ import annotations

import re
from pathlib import Path

from reference_pages.structs import ROOT, source

AT_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/": "examples/",
}
ZOO = "models/isthmus/models/zoo"


def cards() -> list[Path]:
    """The model cards of the shipped bundles."""
    return sorted((ROOT / ZOO).glob("*/MODEL_CARD.md"))


def models() -> str:
    """The cards one after the other, a heading lower."""
    head = "# Shipped models\n\n`isthmus models list` names them. Each card is written when its bundle is made.\n\n"
    return head + "\n\n".join(_card(path) for path in cards())


def _card(path: Path) -> str:
    lowered = re.sub(r"^#", "##", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return re.sub(r"\]\((\w+\.png)\)", rf"]({path.parent.name}-\1)", lowered)


def from_the_site(text: str, page: str) -> str:
    """A page's links to files at the root of the repository, and to examples, as links to where the site has them."""

    def place(found: re.Match[str]) -> str:
        return f"]({'../' * page.count('/')}{AT_THE_ROOT[found[1]]}"

    return re.sub(rf"\]\((?:\.\./)+({'|'.join(map(re.escape, AT_THE_ROOT))})", place, text)


def examples() -> list[Path]:
    """The files of `examples/`, which pages lead to."""
    there = sorted(path for path in (ROOT / "examples").rglob("*") if path.is_file())
    return [path for path in there if path.suffix not in (".md", ".pyc")]


def contributing() -> str:
    """`CONTRIBUTING.md`, its links seen from the site."""
    return _from_root("CONTRIBUTING.md")


def changelog() -> str:
    """`CHANGELOG.md`, its links seen from the site."""
    return _from_root("CHANGELOG.md")


def _from_root(path: str) -> str:
    inside = re.sub(r"\]\(docs/", "](", source(path))
    return re.sub(r"\]\(CONTRIBUTING\.md", "](contributing.md", inside)
