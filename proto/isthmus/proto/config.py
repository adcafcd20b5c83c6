"""One way to read a role's configuration: a TOML file, then environment, then flags; unknown keys refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from isthmus.proto.compat import tomllib
from isthmus.proto.errors import ConfigError

Config = TypeVar("Config", bound=msgspec.Struct)


def load(kind: type[Config], path: Path | None, flags: dict[str, object], *, prefix: str) -> Config:
    """A `kind` from `path` (None: its defaults); then `PREFIX_KEY` variables, then the flags that are not None.

    Raises ConfigError naming the file, variable or flag, and the key.
    """
    known = kind.__struct_fields__
    table = _read(path) if path is not None else {}
    where = str(path) if path is not None else prefix.lower()
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ConfigError(f"{where}: unknown key '{unknown[0]}'; known: {', '.join(known)}")
    table |= {key: os.environ[f"{prefix}_{key.upper()}"] for key in known if f"{prefix}_{key.upper()}" in os.environ}
    table |= {key: value for key, value in flags.items() if value is not None}
    try:
        return msgspec.convert(table, kind, strict=False)  # variables are text
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error
