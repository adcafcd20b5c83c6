"""The two things that Python 3.10 lacks."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum

    import tomllib
else:  # pragma: no cover
    import enum

    import tomli as tomllib

    class StrEnum(str, enum.Enum):
        """`enum.StrEnum` of Python 3.11."""

        def __str__(self) -> str:
            return str(self.value)


__all__ = ["StrEnum", "tomllib"]
