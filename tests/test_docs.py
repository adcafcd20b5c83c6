"""The documents: their links lead somewhere, the paths they name are there, and every command they show can be typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from isthmus.cli.main import application

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "models", "deploy", "examples", "benchmarks")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
EVERYWHERE = {"--help"}


def code(text: str) -> list[str]:
    """What stands in backticks, a block as one piece with its continued lines joined and its comments left out."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"(^|\s)#.*", "", piece) for piece in [*lines, *(" ".join(span.split()) for span in spans)]]


def commands(text: str) -> Iterator[list[str]]:
    """The words behind each `isthmus`, up to the next one or the end of its command."""
    for piece in code(text):
        for part in re.split(r"(?<![\w/.-])isthmus (?=[a-z])", piece)[1:]:
            yield re.split(r"[;|&](?=\s)|\s--(?=\s)", part)[0].split()


def fault(words: list[str], command: Any) -> str | None:
    """What of a command line cannot be typed; a word like `constant|steps` names several commands."""
    while words and re.match(r"[a-z]", words[0]) and (below := getattr(command, "commands", None)):
        names = words[0].split("|")
        if unknown := [name for name in names if name not in below]:
            return f"no command '{unknown[0]}' of {command.name}"
        command, words = below[names[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    flags = {word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word)} - known - EVERYWHERE
    return f"no flag {sorted(flags)[0]} of {command.name}" if flags else None


def is_there(path: str) -> bool:
    """Whether a path is there, from the root or, the short way, without the `isthmus/` of its portion."""
    portion = path.split("/")[0]
    return (ROOT / path).exists() or (ROOT / portion / "isthmus" / path).exists()


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", (ROOT / name).read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    lost = [t for t in targets if not ((ROOT / name).parent / t.partition("#")[0]).exists()]
    assert not lost


@pytest.mark.parametrize("name", NAMES)
def test_named_paths_are_there(name: str) -> None:
    words = {word for piece in code((ROOT / name).read_text()) for word in piece.split()}
    paths = {word for word in words if re.fullmatch(r"[a-z_][\w.-]*(/[\w.-]+)+\.(py|toml|md)", word)}
    assert not sorted(path for path in paths if not is_there(path) and not re.search(r"/[A-Z]+[/.]", path))


@pytest.mark.parametrize("name", NAMES)
def test_commands_can_be_typed(name: str) -> None:
    face = typer.main.get_command(application([]))
    assert not [
        f"{' '.join(words)}: {why}" for words in commands((ROOT / name).read_text()) if (why := fault(words, face))
    ]
