"""The page of every command: usage, what it does, its arguments and options, examples; from the tree that typer makes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from isthmus.cli.examples import EXAMPLES, PAGES
from isthmus.cli.main import application
from reference_pages.structs import prose, table

HEAD = """# Command line

Every command takes `-h`, `-v` and `--log-format json`. Durations, sizes and rates are written with their unit: `100ms`,
`20kB`, `5Mbit/s`. In brackets stands what holds where nothing is said. How a command ends is told by its
[exit code](../exit-codes.md).

"""


def page() -> str:
    """The whole page, commands in the order in which `isthmus --help` lists them."""
    face = typer.main.get_command(application([]))
    return HEAD + "\n".join(_section(words, command) for words, command in commands(face))


def commands(face: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `face` with the words that call it, a group before its verbs."""
    for name, command in getattr(face, "commands", {}).items():
        yield (*words, name), command
        yield from commands(command, (*words, name))


def _section(words: tuple[str, ...], command: Any) -> str:
    parts = [f"{'#' * (1 + len(words))} isthmus {' '.join(words)}\n", _help(command)]
    if any("--help" not in parameter.opts for parameter in command.params) or not getattr(command, "commands", None):
        parts += [f"```text\nisthmus {' '.join((*words, *_places(command)))}\n```\n", _parameters(command)]
    if len(words) == 1:
        parts.append(_examples(words[0]))
    return "\n".join(part for part in parts if part)


def _help(command: Any) -> str:
    return f"{prose(inspect.cleandoc(command.help or ''))}\n"


def _places(command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = ["[OPTIONS]"] if len(arguments) < len(command.params) else []
    places = [parameter.name.upper().strip("_") + "..." * (parameter.nargs < 0) for parameter in arguments]
    return options + [
        place if parameter.required else f"[{place}]" for place, parameter in zip(places, arguments, strict=True)
    ]


def _parameters(command: Any) -> str:
    rows = [
        (_names(parameter), prose(" ".join((getattr(parameter, "help", None) or "").split())), _default(parameter))
        for parameter in command.params
        if "--help" not in parameter.opts
    ]
    return table(("option", "what it says", "else"), rows) if rows else ""


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper().strip('_')}`"
    names = [*parameter.opts, *parameter.secondary_opts]
    return ", ".join(f"`{name}`" for name in names)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "must be given"
    default = parameter.default
    if default is None or default is False or default == () or callable(default):
        return ""
    return f"`{default}`"


def _examples(command: str) -> str:
    lines = "\n".join(EXAMPLES.get(command, ()))
    more = PAGES.get(command, "").removeprefix("docs/")
    told = f"\nMore: [{more.removesuffix('.md').replace('-', ' ')}](../{more})\n" if more.endswith(".md") else ""
    return f"For example:\n\n```sh\n{lines}\n```\n{told}" if lines else ""
