"""Commands that refuse what a person cannot have meant: an option given twice, of which one would be lost, or an empty value.

Nothing of click is imported: newer versions of typer bring their own copy, older ones do not.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from isthmus.cli.examples import epilog

UsageError: type[BaseException] = typer.BadParameter.__mro__[1]


def _check(command: Any, context: Any, arguments: list[str]) -> None:
    """Raises BadParameter (exit code 2) naming the option."""
    if context.resilient_parsing:  # completion, of half a command line
        return
    try:
        values, _, order = command.make_parser(context).parse_args(list(arguments))
    except UsageError:
        return  # the command says so itself
    given = Counter(parameter.name for parameter in order)
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        takes_one = is_option and not (parameter.multiple or parameter.is_flag or parameter.count)
        name = parameter.opts[0] if is_option else parameter.human_readable_name
        if takes_one and given[parameter.name] > 1:
            raise typer.BadParameter(f"given {given[parameter.name]} times; say it once", context, param_hint=name)
        value = values.get(parameter.name)
        if "" in (value if isinstance(value, list | tuple) else [value]):
            raise typer.BadParameter("is empty; leave it out, or give it a value", context, param_hint=name)


class Strict(TyperCommand):
    """A command that looks at its options before it takes them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises BadParameter for a repeated or empty option."""
        _check(self, ctx, args)
        return super().parse_args(ctx, args)


class StrictGroup(TyperGroup):
    """The same for a group, which may take options itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises BadParameter for a repeated or empty option."""
        _check(self, ctx, args)
        return super().parse_args(ctx, args)


def strictly(app: typer.Typer, name: str) -> None:
    """Have every command of the group called `name`, and of the groups in it, look at its options, and show its examples."""
    if app.registered_callback is not None:
        app.registered_callback.cls = StrictGroup
    for command in app.registered_commands:
        called = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        command.cls, command.epilog = Strict, epilog(f"{name} {called}")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            strictly(group.typer_instance, f"{name} {group.name}")
