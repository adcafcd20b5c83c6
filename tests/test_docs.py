"""The documents: their links lead somewhere, the paths they name are there, and every command they show can be typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from isthmus.cli.main import application
from isthmus.proto import errors
from reference_pages import PAGES

ROOT = Path(__file__).parents[1]
PLACES = ("*.md", "docs/**/*.md", "models/**/*.md", "examples/**/*.md")
GENERATED = {(ROOT / "docs" / name).resolve() for name in PAGES}
"""Pages of the site that are written from the code when it is built: nothing lies there."""
NAMES = sorted({str(path.relative_to(ROOT)) for place in PLACES for path in ROOT.glob(place)})


def code(text: str) -> list[str]:
    """What stands in backticks, and the lines of blocks, continued ones joined and without their comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"(^|\s)#.*", "", piece) for piece in [*lines, *(" ".join(span.split()) for span in spans)]]


def commands(text: str) -> Iterator[list[str]]:
    """The words behind each `isthmus`, up to the next one or the end of its command."""
    for piece in code(text):
        for part in re.split(r'(?<![\w/."-])isthmus (?=[a-z])', piece)[1:]:
            yield re.split(r"[;|&](?=\s)|\s--(?=\s)", part)[0].split()


def fault(words: list[str], command: Any) -> str | None:
    """What of a command line cannot be typed; a word like `constant|steps` names several commands."""
    while words and re.match(r"[a-z]", words[0]) and (below := getattr(command, "commands", None)):
        names = words[0].split("|")
        if unknown := [name for name in names if name not in below]:
            return f"no command '{unknown[0]}' of {command.name}"
        command, words = below[names[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    flags = {word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word)} - known - {"--help"}
    return f"no flag {sorted(flags)[0]} of {command.name}" if flags else None


def is_there(path: str) -> bool:
    """Whether a path is there, from the root or, the short way, without the `isthmus/` of its portion."""
    return any((folder / path).exists() for folder in (ROOT, ROOT / path.split("/")[0] / "isthmus"))


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", (ROOT / name).read_text(), flags=re.DOTALL | re.MULTILINE)
    for path, _, anchor in (t.partition("#") for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t):
        found = (ROOT / name).parent / path if path else ROOT / name
        if found.resolve() in GENERATED:
            continue  # the build of the site holds its anchors
        assert found.exists(), path
        if found.suffix != ".md":
            continue  # of a picture, "only-dark" and "only-light" say in which colours it is shown
        headings = re.findall(r"^#+ (.*)", found.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, anchor


@pytest.mark.parametrize("name", NAMES)
def test_named_paths_are_there(name: str) -> None:
    words = {word for piece in code((ROOT / name).read_text()) for word in piece.split()}
    paths = {word for word in words if re.fullmatch(r"[a-z_][\w.-]*(/[\w.-]+)+\.(py|toml|md)", word)}
    assert not sorted(path for path in paths if not is_there(path) and not re.search(r"/[A-Z]+[/.]", path))


@pytest.mark.parametrize("name", NAMES)
def test_commands_can_be_typed(name: str) -> None:
    face, shown = typer.main.get_command(application([])), commands((ROOT / name).read_text())
    assert not [f"{' '.join(words)}: {why}" for words in shown if (why := fault(words, face))]


def test_every_exit_code_is_listed() -> None:
    listed = re.findall(r"^\| (\d+) \| (\w+Error) ", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IsthmusError)]
    assert listed == [(str(kind.exit_code), kind.__name__) for kind in kinds]
