"""The error tree: each kind has its own exit code, and the docstring that users read is true."""

from __future__ import annotations

import inspect
import re

import pytest

from isthmus.proto import errors
from isthmus.proto.errors import IsthmusError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, IsthmusError)]
TAKEN = {0: "success", 2: "usage", 130: "Ctrl-C"}


def test_exit_codes_are_unique_and_not_taken() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & set(TAKEN)


def test_the_docstring_lists_every_kind_with_its_code() -> None:
    listed = dict(re.findall(r"(\w+Error)\s+(\d+)\b", errors.__doc__ or ""))
    assert {name: int(code) for name, code in listed.items()} == {kind.__name__: kind.exit_code for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_documented_and_caught_as_one(kind: type[IsthmusError]) -> None:
    assert kind.__doc__
    with pytest.raises(IsthmusError, match=r"^cam0: unplugged$"):
        raise kind("cam0: unplugged")
