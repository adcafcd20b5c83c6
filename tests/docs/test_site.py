"""The site: every page is in its navigation, once, and it builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from reference_pages import PAGES

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docs" / "site" / "mkdocs.yml"


def in_navigation() -> list[str]:
    """The pages that the navigation names, in its order."""
    return re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", CONFIGURATION.read_text(), re.MULTILINE)


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that is missing: put a line with it under `nav` of docs/site/mkdocs.yml."""
    docs = ROOT / "docs"
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    assert sorted(in_navigation()) == sorted(pages | set(PAGES))
    assert max(Counter(in_navigation()).values()) == 1


@pytest.mark.skipif(find_spec("material") is None, reason="without isthmus[docs]")
def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors and navigation are held by MkDocs itself; nothing on a page is fetched from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(CONFIGURATION)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run([*command, "--site-dir", str(tmp_path)], capture_output=True, text=True, env=quiet)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    first = (tmp_path / "index.html").read_text()
    assert not re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="https?:', first)
    assert (tmp_path / "reference" / "command-line.html").stat().st_size > 50_000
