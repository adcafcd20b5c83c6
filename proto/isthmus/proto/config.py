"""One way to read a role's configuration: a TOML file, then environment, then flags; unknown keys refused by name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from isthmus.proto import quantities
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import ConfigError

Config = TypeVar("Config", bound=msgspec.Struct)


def flag(key: str) -> str:
    """How `key` is spelled as a flag: `deadline_s` is `--deadline`, which takes its unit with the value."""
    return "--" + key.removesuffix("_s").replace("_", "-")


def load(kind: type[Config], path: Path | None, flags: Mapping[str, object], *, prefix: str) -> Config:
    """A `kind` from `path` (None: its defaults); then `PREFIX_KEY` variables, then the flags that are not None.

    Text for a duration, size or rate may have a unit, and must have one where a flag says no unit by its name.
    Raises ConfigError that begins with the file, variable or flag, and names the key.
    """
    return resolve(kind, path, flags, prefix=prefix)[0]


def resolve(
    kind: type[Config], path: Path | None, flags: Mapping[str, object], *, prefix: str
) -> tuple[Config, dict[str, str]]:
    """What `load` gives, and where each value that is not the default was said: the file, variable or flag."""
    table, origin = _said(kind, path, {key: value for key, value in flags.items() if value is not None}, prefix)
    try:
        return msgspec.convert(table, kind, strict=False), origin  # variables are text
    except msgspec.ValidationError as error:
        wrong = next((key for key in table if re.search(rf"\b{key}\b", str(error))), None)
        raise ConfigError(f"{origin.get(wrong or '', path or prefix)}: {error}") from error


def _said(
    kind: type[Config], path: Path | None, flags: dict[str, object], prefix: str
) -> tuple[dict[str, object], dict[str, str]]:
    known = kind.__struct_fields__
    table = read(path) if path is not None else {}
    origin = dict.fromkeys(table, str(path))
    for key in sorted(set(table) - set(known)):
        raise ConfigError(f"{path}: unknown key '{key}'; known: {', '.join(known)}")
    for name in sorted(name for name in os.environ if name.startswith(f"{prefix}_")):
        key = name.removeprefix(f"{prefix}_").lower()
        if key not in known:
            raise ConfigError(f"{name}: unknown key '{key}' in this variable's name; known: {', '.join(known)}")
        table[key], origin[key] = os.environ[name], name
    table |= flags
    origin |= {key: flag(key) for key in flags}
    for key, value in table.items():
        if isinstance(value, str) and (unit := quantities.unit_of(key)) is not None:
            table[key] = _number(value, unit, origin[key], bare=key not in flags or flag(key).endswith(unit))
    return table, origin


def _number(text: str, unit: str, origin: str, *, bare: bool) -> float:
    try:
        return quantities.parse(text, unit, bare=bare)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error


def read(path: Path) -> dict[str, object]:
    """The table of a TOML file. Raises ConfigError that names it."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error
