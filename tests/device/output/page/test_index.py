"""The page's own file: what each theme says of colours."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources

import pytest

PAGE = (resources.files("isthmus.device.output.page") / "index.html").read_text()
THEMES = re.findall(r":root \{(.*?)\}", PAGE, re.DOTALL)


def colours(theme: str) -> Counter[str]:
    return Counter(re.findall(r"--([a-z]+):", theme))


def test_both_themes_have_every_colour() -> None:
    light, dark = map(colours, THEMES)
    assert set(light) == set(dark)


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
def test_no_colour_has_two_meanings(theme: str) -> None:
    """The last one said would win: the empty part of every bar was once in the tracker's colour."""
    assert set(colours(theme).values()) == {1}
